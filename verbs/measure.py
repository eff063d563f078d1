"""A bundle on real histories, measured: tune, evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    BY_DEFAULT,
    LISTED,
    MODES,
    PICTURE_HELP,
    SPECULATIONS,
    VERIFY_HELP,
    PathType,
    batch_option,
    bundle_argument,
    drafter_options,
    engine_option,
    format_options,
    histories_argument,
    item_base_option,
    mode_options,
    scoring_option,
    shape_options,
    threads_option,
)
from .output import Bars, claim_outputs
from .values import (
    HistoryFiles,
    batching_value,
    collected,
    drafting_value,
    engine_value,
    histories_value,
    verification_value,
)

if TYPE_CHECKING:
    from ..evaluate import Outputs
    from ..runtime import Drafting, EngineChoice, Verification

SEVERAL_HELP = f"Several may be given; differences are to the first. {VERIFY_HELP}"
BASELINES = ("plain", "generate")
BASELINE_HELP = "plain: our beam search without drafting, whose lists strict ones must be. generate: transformers'."
RULES = click.Choice(["reuse", "all-or-nothing", "both"])
RULE_HELP = "all-or-nothing: discard a round's evaluations at the first missing node, as AtSpeed does. both: compare."
TIMED_HELP = "Rounds of the walltime, all modes taking turns: requests at batch 1, batches at --batch-size. 0: none."
AUTO_HELP = (
    "auto: draft what pays, in modes whose lists do not depend on it (strict, sampled). fixed: the same in every "
    "round, as for published figures, so that calls can be repeated elsewhere. Default: as for infer, and fixed where "
    "two rules are compared."
)


@click.command()
@bundle_argument
@histories_argument
@click.option("--verify", "mode", default="strict", show_default=True, type=click.Choice(["strict", "sampled"]))
@scoring_option
@click.option("--temperature", type=float, help="sampled: that of the requests to come. Default: 1.")
@click.option("--top-k", "-k", multiple=True, type=click.IntRange(1), help="Several may be given. Default: 1 5 10 20.")
@click.option(
    "--limit", default=256, show_default=True, type=click.IntRange(1), help="How many requests to learn from."
)
@drafter_options
@click.option("--engine", metavar="NAME", help=f"{LISTED}. {BY_DEFAULT}")
@threads_option
@format_options
@histories_value
@verification_value
@drafting_value
@engine_value
def tune(
    bundle: Path, files: HistoryFiles, top_k: tuple[int, ...], verification: "Verification", drafting: "Drafting",
    engine: "EngineChoice",
) -> None:  # fmt: skip
    """Measure on real histories what drafting is worth here, for --speculation auto.

    Counts how often the draft's nodes are needed, at every depth and width, and what calls cost in the loop. The
    result is kept in the engine's folder, in place of an earlier one of the same mode, scoring and drafter; `infer`
    uses it from then on (with a pool: as long as it is the same pool). Lists stay the same, only their speed changes.

    \b
    Examples:
      specbeam tune bundle histories.jsonl
      specbeam tune bundle histories.jsonl --verify sampled --top-k 10 --limit 500
      specbeam tune bundle histories.jsonl --pool item-pool --drafter retrieval
    """
    from ..catalog.histories.requests import HistoryRequest
    from ..evaluate.tune import TOP_K, described
    from ..evaluate.tune import tune as measure

    read = list(files.entries())
    requests = [entry for entry in read if isinstance(entry, HistoryRequest)]
    if len(requests) < len(read):
        click.echo(f"{len(read) - len(requests)} lines are no requests and are left out (infer tells why)", err=True)
    with Bars() as bars:
        path, tuning = measure(
            bundle, [entry.items for entry in requests], users=[entry.user for entry in requests], engine=engine,
            drafting=drafting, top_k=top_k or TOP_K, verification=verification, progress=bars,
        )  # fmt: skip
    click.echo(described(bundle, path, tuning))


def _outputs(output: Path | None, per_user: Path | None, plots: tuple[Path, ...], overwrite: bool) -> "Outputs":
    from ..evaluate import Outputs

    return Outputs(output, per_user, plots, overwrite)


@click.command()
@bundle_argument
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
@batch_option
@scoring_option
@mode_options
@click.option("--seed", default=0, show_default=True, help="Of the draw of requests, of intervals and sampling modes.")
@drafter_options
@click.option("--speculation", type=SPECULATIONS, help=AUTO_HELP)
@shape_options
@engine_option
@threads_option
@item_base_option
@click.option("--output", "-o", type=PathType, help="All numbers, settings and versions as JSON.")
@click.option("--per-user", type=PathType, help="A JSON line for every request, mode and K.")
@click.option("--plot", "plots", multiple=True, type=PathType, help=PICTURE_HELP)
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@collected("outputs", _outputs)
@drafting_value
@engine_value
@batching_value
def evaluate(
    bundle: Path, dataset: Path, item_base: int | None, top_k: tuple[int, ...], modes: tuple[Any, ...],
    outputs: "Outputs", **settings: Any,
) -> None:  # fmt: skip
    """Measure a bundle on a dataset's held-out users: ranking quality, target calls and speed, with intervals.

    DATASET is a folder with index.json and a test split. For every mode and K: Recall and NDCG, warm and cold items
    apart, coverage, target calls, accept steps (AS@K), and the walltime speed-up (WS@K) over plain beam search and
    over transformers' generate with the same item trie (docs/evaluate.md).

    \b
    Examples:
      specbeam evaluate bundle beauty --output results.json --plot speed.svg
      specbeam evaluate bundle beauty --speculation fixed --output as-published.json
      specbeam evaluate bundle beauty --verify strict --verify relaxed --rule both -k 10 -k 20 --timed-users 0
      specbeam evaluate bundle beauty --users 500 --draft-width 24 --per-user users.jsonl
      specbeam evaluate bundle beauty --pool item-pool --drafter retrieval --output retrieval.json
    """
    from ..catalog.histories.dataset import Dataset
    from ..engines.bundle.items import Bundle
    from ..evaluate import Settings
    from ..evaluate import evaluate as measure
    from ..evaluate.settings import TOP_K
    from ..evaluate.table import described

    claim_outputs(*outputs.paths)
    outputs.check()
    measured = Settings(top_k=tuple(sorted(top_k or TOP_K)), verify=modes, **settings)
    opened, held_out = Bundle.open(bundle), Dataset.open(dataset, item_base=item_base)
    with Bars() as bars, outputs.lines() as each:
        evaluation = measure(opened, held_out, measured, each=each, progress=bars)
    outputs.write(evaluation)
    click.echo(described(evaluation))
    if outputs.paths:
        click.echo(f"\nWrote {', '.join(map(str, outputs.paths))}")
