"""The command line: parsing, progress and printing. Every verb imports what it needs when it runs."""

import errno
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
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
@click.option("--top-k", "-k", default=20, show_default=True, type=click.IntRange(1), help="Items for each request.")
@click.option("--drafter", type=click.Choice(["model", "none"]), help="Default: the model, if the bundle has one.")
@click.option("--draft-width", default=40, show_default=True, type=click.IntRange(1), help="Nodes drafted a depth.")
@click.option("--draft-length", default=3, show_default=True, type=click.IntRange(1), help="Depths drafted in a round.")
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
    bundle: Path, histories: tuple[Path, ...], output: Path, top_k: int, drafter: Literal["model", "none"] | None,
    draft_width: int, draft_length: int, engine: str | None, batch_size: int, threads: int | None, format: str | None,
    item_base: int, limit: int | None, stats: bool, rejects: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    """Write the top-K items for every history: one JSON line a request, in the input's order.

    \b
    Examples:
      specrec infer bundle histories.jsonl --output recs.jsonl --top-k 20
      specrec infer bundle sequential_train.txt sequential_valid.txt --item-base 1 -o recs.jsonl
      zcat histories.jsonl.gz | specrec infer bundle - --output - --rejects bad.jsonl | gzip > recs.jsonl.gz
    """
    from specrec.catalog.history import read_histories
    from specrec.runtime import DraftShape, Recommender
    from specrec.runtime.files import InferCounts, check_outputs
    from specrec.runtime.files import infer as serve

    piped = str(output) == "-"
    rejects = rejects or (None if piped else output.with_name(f"{output.name}.rejects.jsonl"))
    check_outputs(output, rejects, histories, overwrite)
    entries = read_histories(histories, format=format, item_base=item_base)
    recommender = Recommender.open(
        bundle, engine=engine, drafter=drafter,
        shape=DraftShape(draft_width, draft_length), batch_size=batch_size, threads=threads,
    )  # fmt: skip
    counts, start = InferCounts(), perf_counter()
    with Bars() as bars:
        lines = serve(
            recommender, islice(entries, limit), top_k, counts, stats=stats,
            progress=lambda served: bars("users", served, limit),
        )  # fmt: skip
        write_results(lines, output, rejects)
    if counts.rejected and not counts.served:
        raise SpecRecError(f"No request could be served: see the reasons {f'in {rejects}' if rejects else 'above'}.")
    if not counts.served:
        raise SpecRecError(f"{', '.join(map(str, histories))}: no request in it. Expected at least one history.")
    click.echo(summary(recommender, counts, perf_counter() - start, rejects), err=piped)


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
    stats = recommender.stats
    served = max(counts.served, 1)
    lines = [f"{counts.served} users in {seconds:.1f} s: {counts.served / seconds:.1f} users/s"]
    lines.append(
        f"target calls per user {stats.target_calls / served:.2f} (without drafting {stats.length}), "
        f"draft calls {stats.draft_calls / served:.2f}, nodes evaluated {stats.nodes_evaluated / served:.1f}"
    )
    if stats.draft_calls:
        rates = (f"{depth}: {'-' if r is None else f'{r:.1%}'}" for depth, r in enumerate(stats.acceptance(), 1))
        lines.append(f"acceptance (needed nodes that had been drafted) by depth: {', '.join(rates)}")
    if counts.unknown_items:
        lines.append(f"{counts.unknown_items} items of the histories are not in the catalog and were dropped")
    if counts.shortened:
        lines.append(f"{counts.shortened} histories were shortened to the model's context")
    if counts.rejected:
        lines.append(f"{counts.rejected} lines were rejected" + (f": see {rejects}" if rejects else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
