"""The command line: parsing, progress and printing. Every verb imports what it needs when it runs."""

import errno
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from threading import current_thread, main_thread
from time import perf_counter
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from specrec import __version__
from specrec.catalog.errors import SpecRecError

if TYPE_CHECKING:
    from specrec.runtime import Recommender
    from specrec.runtime.files import InferCounts

PathType = click.Path(path_type=Path)
FileOrPipe = click.Path(path_type=Path, allow_dash=True)
FORMATS = click.Choice(["jsonl", "lcrec", "atspeed", "minionerec", "parquet"])
PRECISIONS = click.Choice(["fp32", "fp16", "bf16"])
END_TOKENS = click.Choice(["auto", "always", "never"])
END_TOKEN_HELP = "End identifiers with the eos token, as the models were trained. auto: where their lengths differ."
SCORINGS = click.Choice(["full", "constrained"])
SCORING_HELP = (
    "The bundle's default. full: log-softmax over the model's whole vocabulary, as generate does; constrained: "
    "renormalised over the tokens that the catalog allows."
)
MODES = click.Choice(["strict", "tolerant", "relaxed", "sampled"])
VERIFY_HELP = (
    "strict: exactly the target's beam search. sampled: a draw without replacement, exactly from the target's "
    "distribution. tolerant and relaxed trade exactness for fewer calls (docs/modes.md)."
)
PICTURE_HELP = "A .html (opens offline, tells more on hovering), .svg or .png; may be given several times."
SEVERAL_HELP = f"Several may be given; differences are to the first. {VERIFY_HELP}"
BASELINES = ("plain", "generate")
BASELINE_HELP = "plain: our beam search without drafting, whose lists strict ones must be. generate: transformers'."
RULES = click.Choice(["reuse", "all-or-nothing", "both"])
RULE_HELP = "all-or-nothing: discard a round's evaluations at the first missing node, as AtSpeed does. both: compare."
TIMED_HELP = "Rounds of the walltime, all modes taking turns: users at batch 1, batches at --batch-size. 0: none."
AUTO_HELP = "auto: draft what pays, in modes whose lists do not depend on it (strict, sampled)."
TOP_K_HELP = "Items for each request that does not ask for a number of its own."
SLACK_HELP = "tolerant (which needs it): how much lower than the node it replaces a stand-in may score, e.g. 0.1."
SPECULATION_HELP = (
    "How much to draft. auto: as much as pays, by measured latency and acceptance (see `specrec tune`). fixed: the "
    "same in every round. Default: auto where the lists do not depend on it (strict, sampled), unless a width or "
    "length is given."
)

CONFIG_HELP = (
    "Fresh weights of this shape: LAYERSxHIDDEN such as 4x192, llama-tiny, -small, -medium, -68m or -160m, a "
    "config.json, or a checkpoint directory."
)
RATE_HELP = "Default: 0.5 (--config), 0.08 (--from) or 1 (--lora) divided by the hidden width."
OBJECTIVES = click.Choice(["path-kd", "atspeed-s", "atspeed-r", "seq-kd", "word-kd", "tvd-kd", "sft"])
OBJECTIVE_HELP = "What the draft learns (docs/alignment.md)."
DRAFT_HELP = "A draft to start from, or the shape of a fresh one as for `specrec train --config`."
LAYERS_HELP = "Start from the target's first N layers and its embeddings instead."
WINDOWS_HELP = "Places of each history to learn from: the last one, and others at random."
ON_POLICY_HELP = "Share of batches on the draft's own trees, judged by the target."
ALIGN_RATE_HELP = "Default: 0.4 divided by the hidden width."
TRAIN_PRECISION_HELP = "Of computing; weights stay in fp32. Default: bf16 on a GPU that has it, else fp32."


class Verbs(click.Group):
    """A group whose verbs print errors a user can mend as one message, without a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with ends_when_terminated():
                return super().invoke(context)
        except SpecRecError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            extra = EXTRAS.get(package)
            if extra is None:
                raise
            raise click.ClickException(f"{package} is not installed. Run: pip install 'specrec[{extra}]'") from error
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # a reader that has gone away: click ends quietly
                raise
            remedy = "Check the path, its permissions and the free space."
            raise click.ClickException(f"Cannot read or write: {error}. {remedy}") from error


@contextmanager
def ends_when_terminated() -> Iterator[None]:
    """Let SIGTERM end the process as SIGINT does, so that no temporary file is left."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


EXTRAS = {
    "onnxruntime": "cpu", "torch": "export", "transformers": "export", "peft": "export", "onnx": "export",
    "onnxscript": "export", "onnx_ir": "export", "tokenizers": "export", "pyarrow": "parquet",
    "altair": "explain", "vl_convert": "explain", "accelerate": "align",
}  # fmt: skip


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="specrec")
def main() -> None:
    """Fast top-K generative recommendation: a draft proposes beams, the target verifies them in one call.

    \b
    The usual order:
      specrec export --target T --draft D --catalog index.json --output bundle
      specrec build-engine bundle
      specrec infer bundle histories.jsonl --output recs.jsonl
    """


@main.command()
@click.option("--target", required=True, type=PathType, help="Checkpoint directory of the target model.")
@click.option("--draft", type=PathType, help="Checkpoint directory of the draft model (without it: plain beam search).")
@click.option("--catalog", required=True, type=PathType, help="Identifiers of the items: an LC-Rec style index.json.")
@click.option("--items", type=PathType, help="Titles of the items: items.json.")
@click.option("--prompt", metavar="TEXT", help="Prompt with {history} in it. Default: <bos> and the items' tokens.")
@click.option("--separator", default="", show_default=True, metavar="TEXT", help="Between two items of the history.")
@click.option("--chat", is_flag=True, help="Wrap the prompt into the tokenizer's chat template.")
@click.option("--history-length", default=20, show_default=True, type=click.IntRange(1), help="Most recent items kept.")
@click.option("--end-token", default="auto", show_default=True, type=END_TOKENS, help=END_TOKEN_HELP)
@click.option("--scoring", default="full", show_default=True, type=SCORINGS, help=SCORING_HELP)
@click.option("--max-top-k", default=200, show_default=True, type=click.IntRange(1), help="Longest list to ask for.")
@click.option("--precision", default="fp32", show_default=True, type=PRECISIONS)
@click.option("--checkpoints/--no-checkpoints", default=True, help="Keep the checkpoints for the torch engine.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle, its engines included.")
@click.option("--output", "-o", required=True, type=PathType, help="Directory of the bundle to write.")
def export(target: Path, draft: Path | None, catalog: Path, items: Path | None, output: Path, **options: Any) -> None:
    """Export a target and a draft checkpoint for one catalog to a bundle of ONNX graphs.

    \b
    Examples:
      specrec export --target lcrec-7b --draft lcrec-68m --catalog index.json --items items.json -o bundle
      specrec export --target T --draft D --catalog index.json --prompt 'Bought: {history}. Next:' --separator ', ' -o b
      specrec export --target T --catalog titles.json --prompt 'Bought:{history}. Next:' --separator , -o b

    \b
    The catalog's identifiers are tokens of the models' tokenizer ("<a_47>") or text of several tokens (" desk lamp").
    """
    from specrec.export import export_bundle

    export_bundle(target, draft, catalog, items, output, progress=Stages(), **options)
    click.echo(f"Wrote {output}. Next: specrec build-engine {output}")


@main.command("build-engine")
@click.argument("bundle", type=PathType)
@click.option("--backend", default="onnxruntime", show_default=True, type=click.Choice(["onnxruntime"]))
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--precision", type=PRECISIONS, help="Default: the bundle's.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine. Default: all processors.")
@click.option("--overwrite", is_flag=True, help="Replace an existing engine.")
def build_engine(bundle: Path, **options: Any) -> None:
    """Optimise a bundle's graphs for this machine, check them and measure their latency.

    \b
    Examples:
      specrec build-engine bundle
      specrec build-engine bundle --device cuda
    """
    from specrec.engines.build import build_engine as build

    with Bars() as bars:
        folder = build(bundle, progress=bars, **options)
    click.echo(f"Built {folder}. Next: specrec infer {bundle} HISTORIES --output recs.jsonl")


@main.command()
@click.argument("bundle", type=PathType)
@click.argument("histories", nargs=-1, required=True, type=FileOrPipe)
@click.option("--output", "-o", required=True, type=FileOrPipe, help="JSON lines; - is standard output.")
@click.option("--top-k", "-k", default=20, show_default=True, type=click.IntRange(1), help=TOP_K_HELP)
@click.option("--verify", "mode", default="strict", show_default=True, type=MODES, help=VERIFY_HELP)
@click.option("--scoring", type=SCORINGS, help="Default: the bundle's; always constrained with --verify sampled.")
@click.option("--slack", type=float, metavar="NATS", help=SLACK_HELP)
@click.option("--temperature", type=float, help="relaxed, sampled: above 1 more varied, below 1 less. Default: 1.")
@click.option("--seed", type=int, help="relaxed, sampled: the same seed draws the same list for a user. Default: 0.")
@click.option("--exclude-history", is_flag=True, help="Recommend nothing that a request's history holds.")
@click.option("--allow", type=PathType, help="File of item ids, one a line: recommend only these.")
@click.option("--deny", type=PathType, help="File of item ids, one a line: recommend none of these.")
@click.option("--drafter", type=click.Choice(["model", "none"]), help="Default: the model, if the bundle has one.")
@click.option("--speculation", type=click.Choice(["auto", "fixed"]), help=SPECULATION_HELP)
@click.option("--draft-width", type=click.IntRange(1), help="fixed: nodes drafted a depth. Default: 40.")
@click.option("--draft-length", type=click.IntRange(1), help="fixed: depths drafted in a round. Default: 3.")
@click.option("--engine", metavar="NAME", help="As `specrec inspect` lists; or torch-cpu-fp32. Default: the only one.")
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Requests in one call.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine. Default: all processors.")
@click.option("--format", type=FORMATS, help="Of all HISTORIES. Default: by each file's name.")
@click.option("--item-base", default=0, show_default=True, help="First item's number in AtSpeed files (theirs: 1).")
@click.option("--limit", type=click.IntRange(1), help="Read only the first LIMIT requests.")
@click.option("--stats", is_flag=True, help="Write each request's target calls, draft calls and evaluated nodes.")
@click.option("--rejects", type=PathType, help="Where unusable lines go. Default: OUTPUT.rejects.jsonl.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def infer(
    bundle: Path, histories: tuple[Path, ...], output: Path, top_k: int, mode: Any, scoring: Any, slack: float | None,
    temperature: float | None, seed: int | None, exclude_history: bool, allow: Path | None, deny: Path | None,
    drafter: Literal["model", "none"] | None, speculation: Literal["auto", "fixed"] | None, draft_width: int | None,
    draft_length: int | None, engine: str | None, batch_size: int, threads: int | None, format: str | None,
    item_base: int, limit: int | None, stats: bool, rejects: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    """Write the top-K items for every history: one JSON line a request, in the input's order.

    A line of HISTORIES is such as {"user": "u1", "items": ["11", "4"]}, oldest item first. It may hold a "k" of its
    own, "allow" and "deny", lists of item ids, and "exclude_history": true; other keys are ignored. A result that is
    shorter than was asked for, because no more items are allowed, says how many are "available".

    \b
    Examples:
      specrec infer bundle histories.jsonl --output recs.jsonl --top-k 20
      specrec infer bundle histories.jsonl -o recs.jsonl --exclude-history --allow in_stock.txt
      specrec infer bundle histories.jsonl -o recs.jsonl --verify sampled --temperature 0.7 --seed 11
      specrec infer bundle sequential_train.txt sequential_valid.txt --item-base 1 -o recs.jsonl
      zcat histories.jsonl.gz | specrec infer bundle - --output - --rejects bad.jsonl | gzip > recs.jsonl.gz
    """
    from specrec.catalog.history import read_histories
    from specrec.engines.bundle import Bundle
    from specrec.runtime import DraftShape, Recommender, Verification
    from specrec.runtime.files import InferCounts, ItemList, check_outputs, filter_of
    from specrec.runtime.files import infer as serve
    from specrec.runtime.recommender import check_k

    piped = str(output) == "-"
    rejects = rejects or (None if piped else output.with_name(f"{output.name}.rejects.jsonl"))
    verification = Verification(mode, scoring, slack, temperature, seed)
    check_outputs(output, rejects, [*histories, *filter(None, (allow, deny))], overwrite)
    entries = read_histories(histories, format=format, item_base=item_base)
    allow_list, deny_list = (None if path is None else ItemList.read(path) for path in (allow, deny))
    by_hand = {"width": draft_width, "length": draft_length}
    given = {name: value for name, value in by_hand.items() if value is not None}
    opened = Bundle.open(bundle)
    check_k(top_k, opened.manifest.max_top_k)
    recommender = Recommender.open(
        opened, engine=engine, drafter=drafter, speculation=speculation, shape=DraftShape(**given) if given else None,
        verification=verification, batch_size=batch_size, threads=threads,
    )  # fmt: skip
    allowed = filter_of(allow_list, deny_list, recommender.catalog, warn=partial(click.echo, err=True))
    counts, start = InferCounts(), perf_counter()
    with Bars() as bars:
        lines = serve(
            recommender, islice(entries, limit), top_k, counts, item_filter=allowed, exclude_history=exclude_history,
            stats=stats, progress=lambda served: bars("users", served, limit),
        )  # fmt: skip
        write_results(lines, output, rejects)
    if counts.rejected and not counts.served:
        raise SpecRecError(f"No request could be served: see the reasons {f'in {rejects}' if rejects else 'above'}.")
    if not counts.served:
        raise SpecRecError(f"{', '.join(map(str, histories))}: no request in it. Expected at least one history.")
    click.echo(summary(recommender, counts, perf_counter() - start, rejects), err=piped)


@main.command()
@click.argument("bundle", type=PathType)
@click.argument("histories", nargs=-1, required=True, type=FileOrPipe)
@click.option("--verify", "mode", default="strict", show_default=True, type=click.Choice(["strict", "sampled"]))
@click.option("--scoring", type=SCORINGS, help="Default: the bundle's; always constrained with --verify sampled.")
@click.option("--temperature", type=float, help="sampled: that of the requests to come. Default: 1.")
@click.option("--top-k", "-k", multiple=True, type=click.IntRange(1), help="Several may be given. Default: 1 5 10 20.")
@click.option(
    "--limit", default=256, show_default=True, type=click.IntRange(1), help="How many requests to learn from."
)
@click.option("--engine", metavar="NAME", help="As `specrec inspect` lists. Default: the only one.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine. Default: all processors.")
@click.option("--format", type=FORMATS, help="Of all HISTORIES. Default: by each file's name.")
@click.option("--item-base", default=0, show_default=True, help="First item's number in AtSpeed files (theirs: 1).")
def tune(
    bundle: Path, histories: tuple[Path, ...], mode: Any, scoring: Any, temperature: float | None,
    top_k: tuple[int, ...], limit: int, engine: str | None, threads: int | None, format: str | None, item_base: int,
) -> None:  # fmt: skip
    """Measure on real histories what drafting is worth here, for --speculation auto.

    Counts how often the draft's nodes are needed, at every depth and width, and what calls cost in the loop. The
    result is kept in the engine's folder, in place of an earlier one of the same mode and scoring; `infer` uses it
    from then on. Lists stay the same, only their speed changes.

    \b
    Examples:
      specrec tune bundle histories.jsonl
      specrec tune bundle histories.jsonl --verify sampled --top-k 10 --limit 500
    """
    from specrec.catalog.history import HistoryRequest, read_histories
    from specrec.runtime import Verification
    from specrec.runtime.tune import TOP_K, described
    from specrec.runtime.tune import tune as measure

    entries = read_histories(histories, format=format, item_base=item_base)
    read = list(islice(entries, limit))
    requests = [entry.items for entry in read if isinstance(entry, HistoryRequest)]
    if len(requests) < len(read):
        click.echo(f"{len(read) - len(requests)} lines are no requests and are left out (infer tells why)", err=True)
    with Bars() as bars:
        path, tuning = measure(
            bundle, requests, engine=engine, top_k=top_k or TOP_K, threads=threads, progress=bars,
            verification=Verification(mode, scoring, temperature=temperature),
        )  # fmt: skip
    click.echo(described(bundle, path, tuning))


@main.command()
@click.argument("bundle", type=PathType)
@click.argument("dataset", type=PathType)
@click.option(
    "--top-k", "-k", multiple=True, type=click.IntRange(1), help="Several may be given. Default: 1 3 5 10 20."
)
@click.option("--verify", "modes", multiple=True, default=["strict"], show_default=True, type=MODES, help=SEVERAL_HELP)
@click.option("--rule", default="reuse", show_default=True, type=RULES, help=RULE_HELP)
@click.option(
    "--against", multiple=True, default=BASELINES, show_default=True, type=click.Choice(BASELINES), help=BASELINE_HELP
)
@click.option("--split", default="test", show_default=True, type=click.Choice(["test", "valid"]))
@click.option("--users", type=click.IntRange(1), metavar="N", help="A random draw of N requests. Default: all.")
@click.option("--timed-users", default=32, show_default=True, type=click.IntRange(0), help=TIMED_HELP)
@click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1), help="Requests in one call.")
@click.option("--scoring", type=SCORINGS, help="Default: the bundle's; always constrained with --verify sampled.")
@click.option("--slack", type=float, metavar="NATS", help="tolerant: as for `specrec infer`.")
@click.option("--temperature", type=float, help="relaxed, sampled: as for `specrec infer`.")
@click.option("--seed", default=0, show_default=True, help="Of the draw of users, of intervals and sampling modes.")
@click.option("--speculation", default="fixed", show_default=True, type=click.Choice(["auto", "fixed"]), help=AUTO_HELP)
@click.option("--draft-width", type=click.IntRange(1), help="fixed: nodes drafted a depth. Default: 40.")
@click.option("--draft-length", type=click.IntRange(1), help="fixed: depths drafted in a round. Default: 3.")
@click.option("--engine", metavar="NAME", help="As `specrec inspect` lists; or torch-cpu-fp32. Default: the only one.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine. Default: all processors.")
@click.option("--item-base", type=int, help="First item's number in AtSpeed files. Default: 1, as published.")
@click.option("--output", "-o", type=PathType, help="All numbers, settings and versions as JSON.")
@click.option("--per-user", type=PathType, help="A JSON line for every request, mode and K.")
@click.option("--plot", "plots", multiple=True, type=PathType, help=PICTURE_HELP)
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
def evaluate(
    bundle: Path, dataset: Path, top_k: tuple[int, ...], modes: tuple[Any, ...], draft_width: int | None,
    draft_length: int | None, item_base: int | None, output: Path | None, per_user: Path | None,
    plots: tuple[Path, ...], overwrite: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure a bundle on a dataset's held-out users: ranking quality, target calls and speed, with intervals.

    DATASET is a folder with index.json and a test split. For every mode and K: Recall and NDCG, warm and cold items
    apart, coverage, target calls, accept steps (AS@K), and the walltime speed-up (WS@K) over plain beam search and
    over transformers' generate with the same item trie (docs/evaluate.md).

    \b
    Examples:
      specrec evaluate bundle beauty --output results.json --plot speed.svg
      specrec evaluate bundle beauty --verify strict --verify relaxed --rule both -k 10 -k 20 --timed-users 0
      specrec evaluate bundle beauty --users 500 --draft-width 24 --per-user users.jsonl
    """
    from specrec.catalog.dataset import Dataset
    from specrec.engines.bundle import Bundle
    from specrec.evaluate import Outputs, Settings
    from specrec.evaluate import evaluate as measure
    from specrec.evaluate.settings import TOP_K
    from specrec.evaluate.table import described
    from specrec.runtime import DraftShape

    outputs = Outputs(output, per_user, plots)
    outputs.check(overwrite=overwrite)
    by_hand = {"width": draft_width, "length": draft_length}
    given = {name: value for name, value in by_hand.items() if value is not None}
    settings = Settings(
        top_k=tuple(sorted(top_k or TOP_K)), verify=modes, shape=DraftShape(**given) if given else None, **options
    )
    opened, held_out = Bundle.open(bundle), Dataset.open(dataset, item_base=item_base)
    with Bars() as bars, outputs.lines() as each:
        evaluation = measure(opened, held_out, settings, each=each, progress=bars)
    outputs.write(evaluation)
    click.echo(described(evaluation))
    if outputs.paths:
        click.echo(f"\nWrote {', '.join(map(str, outputs.paths))}")


@main.command()
@click.argument("bundle", type=PathType)
@click.option("--json", "as_json", is_flag=True, help="The manifest and the engines' facts as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what is in a bundle: models, catalog, prompt, engines and their latency.

    \b
    Examples:
      specrec inspect bundle
      specrec inspect bundle --json | python -m json.tool
    """
    from specrec.engines.inspect import describe, describe_json

    click.echo(describe_json(bundle) if as_json else describe(bundle))


@main.command()
@click.option("--data", required=True, type=PathType, metavar="DATASET", help="Folder with index.json and histories.")
@click.option("--output", "-o", required=True, type=PathType, help="Directory of the checkpoint to write.")
@click.option("--config", metavar="NAME", help=CONFIG_HELP)
@click.option("--from", "start", type=PathType, metavar="CHECKPOINT", help="Train this checkpoint's weights further.")
@click.option("--lora", type=click.IntRange(1), metavar="RANK", help="With --from: train LoRA adapters of this rank.")
@click.option("--tokenizer", type=PathType, metavar="CHECKPOINT", help="With --config: a draft's must be its target's.")
@click.option("--prompt", metavar="TEXT", help="As for export. Default: <bos> and the items' tokens.")
@click.option("--separator", default="", show_default=True, metavar="TEXT", help="Between two items of the history.")
@click.option("--chat", is_flag=True, help="Wrap the prompt into the tokenizer's chat template.")
@click.option("--history-length", default=20, show_default=True, type=click.IntRange(1), help="Most recent items kept.")
@click.option("--end-token", default="auto", show_default=True, type=END_TOKENS, help=END_TOKEN_HELP)
@click.option("--epochs", type=float, help="Default: 10 from fresh weights, 3 from a checkpoint's.")
@click.option("--steps", type=click.IntRange(1), help="In place of --epochs.")
@click.option("--batch-size", "batch", type=click.IntRange(1), help="Sequences in one forward pass. Default: 16.")
@click.option("--gradient-accumulation", type=click.IntRange(1), help="Forward passes a step. Default: 1.")
@click.option("--learning-rate", type=float, help=RATE_HELP)
@click.option("--weight-decay", type=float, help="Default: 0.05.")
@click.option("--checks", type=click.IntRange(1), help="Looks at the validation loss, and checkpoints. Default: 10.")
@click.option("--patience", type=click.IntRange(1), help="Checks without a better loss before it stops. Default: 3.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help=TRAIN_PRECISION_HELP)
@click.option("--seed", type=click.IntRange(0), help="Default: 0.")
@click.option("--item-base", type=int, help="First item's number in AtSpeed files. Default: 1, as published.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier checkpoint of this verb.")
def train(
    data: Path, output: Path, config: str | None, start: Path | None, lora: int | None, tokenizer: Path | None,
    prompt: str | None, separator: str, chat: bool, history_length: int, end_token: Any, item_base: int | None,
    overwrite: bool, **budget: Any,
) -> None:  # fmt: skip
    """Train a target or a draft on a dataset's histories: from fresh weights, or a checkpoint's, whole or with LoRA.

    The checkpoint of the best validation loss is written, with training.json and TensorBoard events beside it. Ctrl-C
    keeps what is done in OUTPUT.work; the same command goes on from there.

    \b
    Examples:
      specrec train --data beauty --config 4x192 --output target
      specrec train --data beauty --config 1x96 --output draft
      specrec train --data beauty --from Qwen3-0.6B --lora 16 --precision bf16 --output target
      specrec train --data beauty --from Qwen3-0.6B --prompt 'Bought: {history} Next:' --separator ' ' -o target
      specrec train --data beauty --config llama-68m --tokenizer target --output draft
    """
    from specrec.align.samples import PromptOptions
    from specrec.align.sources import find_source
    from specrec.align.train import train as trained
    from specrec.catalog.dataset import Dataset

    source = find_source(config, start, lora, tokenizer)
    report = trained(
        Dataset.open(data, item_base=item_base), source, output,
        budget={name: value for name, value in budget.items() if value is not None},
        prompt=PromptOptions(
            prompt=prompt, separator=separator, chat=chat, history_length=history_length, end_token=end_token
        ),
        overwrite=overwrite, progress="training",
    )  # fmt: skip
    click.echo(report.summary())
    click.echo(
        f"Wrote {output}. Next: specrec export --target {output} --catalog {data / 'index.json'} --output bundle"
    )


@main.command()
@click.option("--target", required=True, type=PathType, metavar="CHECKPOINT", help="The target, or its LoRA adapter.")
@click.option("--draft", metavar="CHECKPOINT|CONFIG", help=DRAFT_HELP)
@click.option("--from-target-layers", "layers", type=click.IntRange(1), metavar="N", help=LAYERS_HELP)
@click.option("--share-embeddings", "shared", is_flag=True, help="With --from-target-layers: embeddings and head stay.")
@click.option("--data", required=True, type=PathType, metavar="DATASET", help="Folder with index.json and histories.")
@click.option("--output", "-o", required=True, type=PathType, help="Directory of the aligned draft.")
@click.option("--objective", default="path-kd", show_default=True, type=OBJECTIVES, help=OBJECTIVE_HELP)
@click.option("--alpha", type=float, help="The objective's share of the loss, the data's having the rest.")
@click.option("--temperature", type=float, help="atspeed-r: divides both models' logits. Default: 1.")
@click.option("--softened", type=float, help="atspeed-s: temperature of a softmax over probabilities, as published.")
@click.option(
    "--top-k", "-k", default=20, show_default=True, type=click.IntRange(1), help="Width of the target's beams."
)
@click.option("--windows", default=1, show_default=True, type=click.IntRange(1), help=WINDOWS_HELP)
@click.option("--places", type=click.IntRange(1), metavar="N", help="At most so many places in all. Default: all.")
@click.option("--on-policy", default=0.0, show_default=True, metavar="SHARE", help=ON_POLICY_HELP)
@click.option(
    "--teacher", type=PathType, help="Folder that keeps the target's trees for other runs. Default: not kept."
)
@click.option("--prompt", metavar="TEXT", help="As for export. Default: <bos> and the items' tokens.")
@click.option("--separator", default="", show_default=True, metavar="TEXT", help="Between two items of the history.")
@click.option("--chat", is_flag=True, help="Wrap the prompt into the tokenizer's chat template.")
@click.option("--history-length", default=20, show_default=True, type=click.IntRange(1), help="Most recent items kept.")
@click.option("--end-token", default="auto", show_default=True, type=END_TOKENS, help=END_TOKEN_HELP)
@click.option("--epochs", type=float, help="Default: 10 for a fresh draft or target layers, 3 for a checkpoint.")
@click.option("--steps", type=click.IntRange(1), help="In place of --epochs.")
@click.option("--batch-size", "batch", type=click.IntRange(1), help="Prompts in one forward pass. Default: 32.")
@click.option("--learning-rate", type=float, help=ALIGN_RATE_HELP)
@click.option("--weight-decay", type=float, help="Default: 0.01.")
@click.option("--checks", type=click.IntRange(1), help="Looks at the validation acceptance. Default: 10.")
@click.option("--patience", type=click.IntRange(1), help="Checks without a better one before it stops. Default: 3.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help=TRAIN_PRECISION_HELP)
@click.option("--seed", type=click.IntRange(0), help="Default: 0.")
@click.option("--item-base", type=int, help="First item's number in AtSpeed files. Default: 1, as published.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier draft of this verb.")
def align(
    target: Path, draft: str | None, layers: int | None, shared: bool, data: Path, output: Path, objective: Any,
    alpha: float | None, temperature: float | None, softened: float | None, top_k: int, windows: int,
    places: int | None, on_policy: float, teacher: Path | None, prompt: str | None, separator: str, chat: bool,
    history_length: int, end_token: Any, item_base: int | None, overwrite: bool, **budget: Any,
) -> None:  # fmt: skip
    """Align a draft to its target: it learns what the target's beam search ranks highest, so that more is accepted.

    The target's beam trees over the training histories are made first and stored compactly; then the draft is
    trained on prompts and trees in one pass. The weights that have most of what validation users need among
    40 drafted nodes a depth are written, with alignment.json and TensorBoard events beside them. Ctrl-C keeps what
    is done in OUTPUT.work; the same command goes on from there. Objectives: docs/alignment.md.

    \b
    Examples:
      specrec align --target target --draft draft --data beauty --output aligned
      specrec align --target target --from-target-layers 1 --data beauty --output aligned --epochs 10
      specrec align --target target --draft 2x128 --data beauty --objective atspeed-s --teacher trees --output s
    """
    from specrec.align.align import AlignOptions
    from specrec.align.align import align as run
    from specrec.align.drafts import find_draft
    from specrec.align.objectives import find_objective
    from specrec.align.samples import PromptOptions
    from specrec.catalog.dataset import Dataset

    settings = find_objective(objective, alpha=alpha, temperature=temperature, softened=softened, top_k=top_k)
    source = find_draft(draft, target, layers, shared)
    dataset = Dataset.open(data, item_base=item_base)
    form = PromptOptions(
        prompt=prompt, separator=separator, chat=chat, history_length=history_length, end_token=end_token
    )
    with Bars() as bars:
        report = run(
            dataset, target, source, settings, output, prompt=form, teacher=teacher, overwrite=overwrite,
            options=AlignOptions(top_k=top_k, windows=windows, places=places, on_policy=on_policy),
            budget={name: value for name, value in budget.items() if value is not None}, progress=bars, bar="aligning",
        )  # fmt: skip
    click.echo(f"{report.summary()}\nWrote {output}. Next: specrec export --target {target} --draft {output} ...")


@main.command()
@click.option("--output", "-o", default="demo", show_default=True, type=PathType, help="Directory for all it makes.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo's files.")
def demo(output: Path, overwrite: bool) -> None:
    """Train a tiny pair on generated histories, export, build, infer and check it: about two minutes.

    \b
    Example:
      specrec demo --output demo
    """
    from specrec.demo import run_demo

    run_demo(output, overwrite=overwrite)


@main.command()
@click.argument("bundle", type=PathType)
@click.option("--history", required=True, metavar="IDS", help="Item ids, oldest first, with commas between them.")
@click.option("--output", "-o", "outputs", required=True, multiple=True, type=PathType, help=PICTURE_HELP)
@click.option("--top-k", "-k", default=10, show_default=True, type=click.IntRange(1), help="Items to recommend.")
@click.option("--verify", "mode", default="strict", show_default=True, type=MODES, help=VERIFY_HELP)
@click.option("--scoring", type=SCORINGS, help="Default: the bundle's; always constrained with --verify sampled.")
@click.option("--slack", type=float, metavar="NATS", help="tolerant: as for `specrec infer`.")
@click.option("--temperature", type=float, help="relaxed, sampled: as for `specrec infer`.")
@click.option("--seed", type=int, help="relaxed, sampled: as for `specrec infer`.")
@click.option("--speculation", type=click.Choice(["auto", "fixed"]), help=SPECULATION_HELP)
@click.option("--draft-width", type=click.IntRange(1), help="fixed: nodes drafted a depth. Default: 40.")
@click.option("--draft-length", type=click.IntRange(1), help="fixed: depths drafted in a round. Default: 3.")
@click.option("--engine", metavar="NAME", help="As `specrec inspect` lists; or torch-cpu-fp32. Default: the only one.")
@click.option("--threads", type=click.IntRange(1), help="Threads of each engine. Default: all processors.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def explain(
    bundle: Path, history: str, outputs: tuple[Path, ...], top_k: int, mode: Any, scoring: Any, slack: float | None,
    temperature: float | None, seed: int | None, speculation: Literal["auto", "fixed"] | None, draft_width: int | None,
    draft_length: int | None, engine: str | None, threads: int | None, overwrite: bool,
) -> None:  # fmt: skip
    """Draw how one list came about: what was drafted, needed, missed, and what both models thought of it.

    \b
    Examples:
      specrec explain bundle --history 11,202,87 --output tree.html
      specrec explain bundle --history 11,202,87 --top-k 20 --draft-width 80 -o tree.svg -o tree.png
    """
    from specrec.explain import explain as explained
    from specrec.picture import chart, check_kind, save
    from specrec.runtime import DraftShape, Recommender, Verification
    from specrec.runtime.files import check_outputs

    for output in outputs:
        check_kind(output)
        check_outputs(output, None, [], overwrite)
    by_hand = {"width": draft_width, "length": draft_length}
    given = {name: value for name, value in by_hand.items() if value is not None}
    recommender = Recommender.open(
        bundle, engine=engine, speculation=speculation, shape=DraftShape(**given) if given else None,
        verification=Verification(mode, scoring, slack, temperature, seed), batch_size=1, threads=threads,
    )  # fmt: skip
    items = [item.strip() for item in history.split(",") if item.strip()]
    unknown = [item for item in items if item not in recommender.catalog.position]
    explanation = explained(recommender, items, top_k)
    if unknown:
        click.echo(f"Left out of the history, because the catalog lacks them: {', '.join(unknown)}", err=True)
    picture = chart(explanation)
    for output in outputs:
        save(picture, output)
    click.echo(f"{explanation.headline}\nWrote {', '.join(map(str, outputs))}")
    if not explanation.drafted and speculation is None and not given:
        click.echo("Where there is a draft, --speculation fixed shows what it would propose.", err=True)


class Stages:
    """Prints each stage of a long verb on standard error as it begins."""

    def __call__(self, stage: str) -> None:
        click.echo(f"  {stage}", err=True)


class Bars:
    """Progress bars on standard error (where it is a terminal), one for each named stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if stage != self._stage:
            self.__exit__()
            self._stage, self._bar = stage, tqdm(total=total, desc=stage, file=sys.stderr, disable=None)
        self._bar.update(done - self._bar.n)


def write_results(lines: Iterable[Any], output: Path, rejects: Path | None) -> None:
    """Results to `output`, rejects to `rejects` or standard error; a file is whole, or absent if nothing is in it."""
    from specrec.catalog.files import whole_file
    from specrec.runtime.files import RejectLine, write_line

    with ExitStack() as stack:
        results: IO[bytes] | None = sys.stdout.buffer if str(output) == "-" else None
        rejected: IO[bytes] | None = None
        for line in lines:
            if not isinstance(line, RejectLine):
                results = results or stack.enter_context(whole_file(output))
                write_line(results, line)
            elif rejects is None:
                click.echo(f"{line.file}, line {line.line}: {line.reason}", err=True)
            else:
                rejected = rejected or stack.enter_context(whole_file(rejects))
                write_line(rejected, line)
        if results is not None:
            results.flush()
    if rejects is not None and rejected is None:
        rejects.unlink(missing_ok=True)  # an earlier run's


def summary(recommender: "Recommender", counts: "InferCounts", seconds: float, rejects: Path | None) -> str:
    """What a run did, in a few lines."""
    from specrec.runtime.planner import Planner

    stats = recommender.stats
    served = max(counts.served, 1)
    lines = [f"{counts.served} users in {seconds:.1f} s: {counts.served / seconds:.1f} users/s"]
    lines.append(
        f"target calls per user {stats.target_calls / served:.2f} (plain beam search: up to {stats.length}), "
        f"draft calls {stats.draft_calls / served:.2f}, nodes evaluated {stats.nodes_evaluated / served:.1f}"
    )
    if stats.draft_calls:
        rates = (f"{depth}: {'-' if r is None else f'{r:.1%}'}" for depth, r in enumerate(stats.acceptance(), 1))
        lines.append(f"acceptance (needed nodes that had been drafted) by depth: {', '.join(rates)}")
    if (
        stats.target_calls
        and not stats.draft_calls
        and isinstance(recommender.planning, Planner)
        and recommender.planning.draft
    ):
        lines.append("auto had the model draft nothing: by what is known it does not pay here (see `specrec tune`)")
    if stats.stand_ins:
        lines.append(f"{stats.stand_ins} nodes stood in for better ones that had not been drafted")
    if counts.short_lists:
        lines.append(f"{counts.short_lists} lists are short: fewer items are allowed than were asked for")
    if counts.unknown_items:
        lines.append(f"{counts.unknown_items} items of the histories are not in the catalog and were dropped")
    if counts.shortened:
        lines.append(f"{counts.shortened} histories were shortened to the model's context")
    if counts.rejected:
        lines.append(f"{counts.rejected} lines were rejected" + (f": see {rejects}" if rejects else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
