"""What a verb shows: progress, results, and a summary of the run."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import UnsupportedOperation
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, overload

import click

from ..catalog.errors import SpecBeamError

if TYPE_CHECKING:
    from ..catalog.records import RejectLine
    from ..runtime.chosen import Chosen
    from ..runtime.runs.inference import InferCounts
    from ..runtime.runs.windows import Outcomes
    from ..runtime.stats import DecodeStats

REJECTED = 3  # exit status


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
    """Progress bars on standard error (where it is a terminal), one for each named stage; look: options of tqdm's."""

    def __init__(self, **look: Any) -> None:
        self._look = look
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int | None, start: int = 0, note: str = "") -> None:
        """start: what was done before this process began, which says nothing of its speed; note: said behind it."""
        from tqdm import tqdm

        if stage != self._stage:
            self.__exit__()
            bar = tqdm(total=total, desc=stage, initial=start, file=sys.stderr, disable=None, **self._look)
            self._stage, self._bar = stage, bar
        self._bar.total = total  # of downloads it is known file by file
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)


@overload
def fetched(given: str, name: str) -> Path: ...
@overload
def fetched(given: str | None, name: str) -> Path | None: ...
def fetched(given: str | None, name: str) -> Path | None:
    """The folder of a checkpoint, which may be a hub's; a bar shows its download where that takes its time."""
    from ..export.local import local

    if given is None:
        return None
    with download_bars() as bars:
        return local(given, name, progress=Stages(), bar=bars)


def download_bars() -> Bars:
    """Of bytes, and only of what takes more than two seconds."""
    return Bars(unit="B", unit_scale=True, delay=2)


@contextmanager
def results_alone() -> Iterator[IO[bytes]]:
    """Standard output for results, and nothing else: what anybody prints meanwhile, in C as well, is an error's."""
    sys.stdout.flush()
    try:
        own, error = sys.stdout.fileno(), sys.stderr.fileno()
    except UnsupportedOperation:  # streams in memory, of a caller in this process
        results = sys.stdout.buffer
        with redirect_stdout(sys.stderr):
            yield results
        return
    kept = os.dup(own)
    try:
        os.dup2(error, own)
        with os.fdopen(os.dup(kept), "wb") as results:
            yield results
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)  # what C holds back, too, before the descriptor is the results' again
        os.dup2(kept, own)
        os.close(kept)


@contextmanager
def rejecting(rejects: Path | None, *, overwrite: bool) -> Iterator[Callable[["RejectLine"], None]]:
    """Where rejects go: to a file, which is there only if one went there, or to standard error."""
    from ..catalog.files import whole_file
    from ..runtime.runs.inference import write_line

    with ExitStack() as stack:
        file: IO[bytes] | None = None

        def reject(line: "RejectLine") -> None:
            nonlocal file
            if rejects is None:
                click.echo(f"{line.file}, line {line.line}: {line.reason}", err=True)
                return
            file = file or stack.enter_context(whole_file(rejects, replace=overwrite))
            write_line(file, line)

        yield reject
    if rejects is not None and file is None and overwrite:
        rejects.unlink(missing_ok=True)  # an earlier run's


def write_rejects(lines: "Iterable[RejectLine]", rejects: Path, *, overwrite: bool) -> None:
    """All of them at once."""
    with rejecting(rejects, overwrite=overwrite) as reject:
        for line in lines:
            reject(line)


def conclude(outcomes: "Outcomes", done: str, *, strict: bool) -> None:
    """End with an error where the engine gave no numbers for some requests; done: what there is of the others.

    strict: as of `refuse_rejects`.
    """
    if outcomes.failed:
        raise SpecBeamError(
            f"{outcomes.failed} requests could not be answered, and are among the rejects: {outcomes.reason}. {done}"
        )
    refuse_rejects(outcomes.rejected, strict=strict)


def refuse_rejects(rejected: int, *, strict: bool) -> None:
    """End with the status `REJECTED` where lines were set aside and are not to be (--strict-input)."""
    if strict and rejected:
        raise SystemExit(REJECTED)


def summary(
    stats: "DecodeStats", chosen: "Chosen", counts: "InferCounts", earlier: int, seconds: float,
    rejects: Path | None,
) -> str:  # fmt: skip
    """What a run did, in a few lines; earlier: requests that were served before it was interrupted."""
    from ..runtime.planning.planner import Planner

    now = counts.served - earlier
    served = max(now, 1)
    lines = [f"{now} requests in {seconds:.1f} s: {now / seconds:.1f} requests/s"]
    if earlier:
        lines.append(f"{earlier} lists are of an earlier run that was interrupted")
    lines.append(
        f"target calls a request {stats.target_calls / served:.2f} (plain beam search: up to {stats.length}), "
        f"draft calls {stats.draft_calls / served:.2f}, nodes evaluated {stats.nodes_evaluated / served:.1f}"
    )
    if stats.nodes_drafted:
        rates = (f"{depth}: {'-' if r is None else f'{r:.1%}'}" for depth, r in enumerate(stats.acceptance(), 1))
        lines.append(
            f"acceptance (of the nodes that were needed, the share drafted before) by depth: {', '.join(rates)}"
        )
    planning, known = chosen.planning, "by the engine's latency (`specbeam tune` measures it)"
    if chosen.memory is not None and chosen.memory.requests is not None:
        known, path = "as earlier runs found", chosen.memory.path
        lines.append(f"auto began with what earlier runs found (of {chosen.memory.requests} requests, in {path})")
    if stats.target_calls and not stats.nodes_drafted and isinstance(planning, Planner) and planning.draft:
        known = "as tuned" if planning.tuned else known
        lines.append(f"auto drafted nothing: {known}, it does not pay here")
    if stats.stand_ins:
        lines.append(f"{stats.stand_ins} nodes stood in for better ones that had not been drafted")
    if counts.popular:
        lines.append(f"{counts.popular} requests without a usable history got what is popular")
    if counts.short_lists:
        lines.append(f"{counts.short_lists} lists are short: fewer items are allowed than were asked for")
    if counts.unknown_items:
        lines.append(f"{counts.unknown_items} items of the histories are not in the catalog and were dropped")
    if counts.unknown_listed:
        lines.append(f"{counts.unknown_listed} items of requests' own allow and deny lists are not in the catalog")
    if counts.shortened:
        lines.append(f"{counts.shortened} histories were shortened to the model's context")
    if stats.failed_drafts:
        lines.append(
            f"for {stats.failed_drafts} requests the draft's engine gave NaN or infinity and drafted nothing: their "
            "lists are right, but took longer. Build it again, in fp32 or bf16 where it is fp16"
        )
    if counts.rejected:
        lines.append(f"{counts.rejected} lines were rejected" + (f": see {rejects}" if rejects else ""))
    return "\n".join(lines)
