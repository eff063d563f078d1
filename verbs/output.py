"""What a verb shows: progress, results, and a summary of the run."""

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..runtime import Recommender
    from ..runtime.files import InferCounts


class Stages:
    """Prints each stage of a long verb on standard error as it begins."""

    def __call__(self, stage: str) -> None:
        click.echo(f"  {stage}", err=True)


def claim_outputs(*outputs: Path | None) -> None:
    """Hold a verb's outputs until it ends; see `claim`. None and "-" are no files."""
    from ..catalog.claims import claim

    files = [path for path in outputs if path is not None and str(path) != "-"]
    click.get_current_context().with_resource(claim(*files))


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


def write_results(lines: Iterable[Any], output: Path, rejects: Path | None, *, overwrite: bool) -> None:
    """Results to `output`, rejects to `rejects` or standard error; a file is whole, or absent if nothing is in it."""
    from ..catalog.errors import OutputTakenError
    from ..catalog.files import whole_file
    from ..runtime.files import write_line

    with ExitStack() as stack:
        results: IO[bytes] | None = sys.stdout.buffer if str(output) == "-" else None
        taken: OutputTakenError | None = None

        def write(line: Any) -> None:
            nonlocal results
            results = results or stack.enter_context(whole_file(output, replace=overwrite))
            write_line(results, line)

        try:
            set_aside(lines, write, rejects, overwrite=overwrite)
        except OutputTakenError as error:  # the rejects' place was taken: the results are complete all the same
            taken = error
        if results is not None:
            results.flush()
    if taken is not None:
        raise taken


def set_aside(lines: Iterable[Any], write: Callable[[Any], None], rejects: Path | None, *, overwrite: bool) -> None:
    """Rejects to the file `rejects`, or to standard error; `write` gets the other lines."""
    from ..catalog.files import whole_file
    from ..runtime.files import RejectLine, write_line

    with ExitStack() as stack:
        rejected: IO[bytes] | None = None
        for line in lines:
            if not isinstance(line, RejectLine):
                write(line)
            elif rejects is None:
                click.echo(f"{line.file}, line {line.line}: {line.reason}", err=True)
            else:
                rejected = rejected or stack.enter_context(whole_file(rejects, replace=overwrite))
                write_line(rejected, line)
    if rejects is not None and rejected is None and overwrite:
        rejects.unlink(missing_ok=True)  # an earlier run's


def summary(recommender: "Recommender", counts: "InferCounts", seconds: float, rejects: Path | None) -> str:
    """What a run did, in a few lines."""
    from ..runtime.planner import Planner

    stats = recommender.stats
    served = max(counts.served, 1)
    lines = [f"{counts.served} users in {seconds:.1f} s: {counts.served / seconds:.1f} users/s"]
    lines.append(
        f"target calls per user {stats.target_calls / served:.2f} (plain beam search: up to {stats.length}), "
        f"draft calls {stats.draft_calls / served:.2f}, nodes evaluated {stats.nodes_evaluated / served:.1f}"
    )
    if stats.nodes_drafted:
        rates = (f"{depth}: {'-' if r is None else f'{r:.1%}'}" for depth, r in enumerate(stats.acceptance(), 1))
        lines.append(f"acceptance (needed nodes that had been drafted) by depth: {', '.join(rates)}")
    if (
        stats.target_calls
        and not stats.nodes_drafted
        and isinstance(recommender.planning, Planner)
        and recommender.planning.draft
    ):
        lines.append("auto drafted nothing: by what is known it does not pay here (see `specbeam tune`)")
    if stats.stand_ins:
        lines.append(f"{stats.stand_ins} nodes stood in for better ones that had not been drafted")
    if counts.short_lists:
        lines.append(f"{counts.short_lists} lists are short: fewer items are allowed than were asked for")
    if counts.unknown_items:
        lines.append(f"{counts.unknown_items} items of the histories are not in the catalog and were dropped")
    if counts.unknown_listed:
        lines.append(f"{counts.unknown_listed} items of requests' own allow and deny lists are not in the catalog")
    if counts.shortened:
        lines.append(f"{counts.shortened} histories were shortened to the model's context")
    if counts.rejected:
        lines.append(f"{counts.rejected} lines were rejected" + (f": see {rejects}" if rejects else ""))
    return "\n".join(lines)
