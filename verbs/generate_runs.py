"""How generate does its run: in this process, or on a cluster."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..catalog.errors import OptionError, SpecBeamError
from .cluster_run import FolderRun, NodeSide
from .long_run import LongRun, Progress, numbered, pool_files
from .output import Bars
from .values import Running, Writing

if TYPE_CHECKING:
    from ..catalog.histories.storage import Place
    from ..engines.bundle.texts import TextBundle
    from ..runtime.runs.log import RunFacts
    from ..runtime.runs.windows import Outcomes, Sink
    from ..text import GenerationStats, TextGenerator
    from ..text.files import Generating

AGAIN = "Pass --overwrite to begin anew."


class Ran(NamedTuple):
    """What a run did."""

    stats: "GenerationStats"  # of what it did itself
    counts: "Outcomes"
    earlier: int  # texts that were written before it was interrupted


def asked(running: Running, writing: Writing, prompts: "Place") -> LongRun | FolderRun:
    """The run. Raises `OptionError` for more processes than one on this machine."""
    if running.cluster is not None:
        return FolderRun(writing, running.cluster, [prompts])
    if (running.workers or 1) > 1:
        raise OptionError("--workers: for --ray only. Add that, or leave it out.")
    return LongRun(writing, [_local(prompts)])


def _local(prompts: "Place") -> Path:
    if not isinstance(prompts, Path):
        raise OptionError(f"{prompts}: URIs are read with --ray only. Add that, or fetch the file.")
    return prompts


def here(
    run: LongRun, prompts: "Place", generating: "Generating", bundle: "TextBundle", limit: int | None,
    facts: "Callable[..., RunFacts]",
) -> Ran:  # fmt: skip
    from ..runtime.runs.windows import Outcomes
    from ..text.prompts import read_prompts

    generator, prompts = generating.opened(bundle), _local(prompts)
    with Bars() as bars:
        read = run.checksums({"prompts": prompts, **pool_files(generating.pool)}, bars)
        with run.sink(facts(read), Outcomes(), bars) as sink:
            earlier = sink.counts.served
            _learn(generator, sink, bars, earlier)
            job = generating.job(generator, ahead=not run.piped)
            run.perform(
                job, islice(read_prompts(prompts), limit), sink, bars, Progress("texts", _total(prompts, limit))
            )
    return Ran(generator.stats, sink.counts, earlier)


def spread_over(
    run: FolderRun, prompts: "Place", generating: "Generating", bundle: "TextBundle", workers: int | None,
    limit: int | None, facts: "Callable[..., RunFacts]",
) -> Ran:  # fmt: skip
    from ..cluster.reading import prompts as prompt_files
    from ..runtime.runs.windows import Outcomes
    from ..text.stats import GenerationStats

    name, threads = generating.engine.of(bundle)
    input, stats = prompt_files([prompts], limit).in_windows(generating.batching.size), GenerationStats()
    nodes = NodeSide.of(bundle, name, threads, generating.pool)
    with Bars() as bars:
        read = run.checksums({**numbered("prompts", input.files), **pool_files(generating.pool)}, bars)
        found = facts(read, partition=input.partition)
        ran = run.perform(found, Outcomes(), stats, generating.anywhere(), input, nodes, workers, bars)
    return Ran(stats, *ran)


def _total(prompts: Path, limit: int | None) -> int | None:
    """How many texts the progress bar expects: a line each; None where nobody can tell."""
    from ..catalog.records import is_regular

    if not is_regular(prompts):
        return limit
    with prompts.open("rb") as file:
        lines = sum(1 for _ in file)
    return min(lines, limit or lines)


def _learn(generator: "TextGenerator", sink: "Sink[Outcomes]", bars: Bars, earlier: int) -> None:
    """The texts of an earlier run draft for those to come, as they would have in one run."""
    import msgspec

    from ..catalog.bounds import DAMAGED
    from ..runtime.runs.journal import Journal
    from ..text.files import TextLine

    if isinstance(sink, Journal):
        for number, data in enumerate(sink.results(), 1):
            try:
                text = msgspec.json.decode(data, type=TextLine)
            except DAMAGED as error:
                raise SpecBeamError(f"line {number} of the partial output is no text: {error}. {AGAIN}") from error
            generator.learn(text.text, text.finish, id=text.id, group=text.group)
            bars("earlier texts learned", number, earlier)
