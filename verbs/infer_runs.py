"""How infer does its run: in this process, in several, or on a cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from .cluster_run import FolderRun, NodeSide
from .lists import Lists
from .long_run import LongRun, Progress
from .output import Bars
from .values import HistoryFiles, Running, Writing

if TYPE_CHECKING:
    from ..catalog.histories.requests import HistoryRequest
    from ..catalog.records import Reject
    from ..cluster.reading import Input
    from ..engines.bundle.items import Bundle
    from ..runtime import Batching, Drafting, Verification
    from ..runtime.chosen import Chosen
    from ..runtime.runs.inference import InferCounts, Inference
    from ..runtime.runs.log import RunFacts
    from ..runtime.runs.shared import Serving
    from ..runtime.stats import DecodeStats


class Ran(NamedTuple):
    """What a run did."""

    stats: "DecodeStats"  # of what it did itself
    counts: "InferCounts"
    earlier: int  # requests that were served before it was interrupted


def asked(running: Running, writing: Writing, files: HistoryFiles, lists: Lists) -> "tuple[LongRun | FolderRun, Any]":
    """The run, and what it reads: a stream of requests, or how they are read by others."""
    from ..cluster.reading import histories

    if running.cluster is None:
        return LongRun(writing, [*files.here(), *lists.files]), files.entries(keep_read=True)
    run = FolderRun(writing, running.cluster, [*files.histories, *lists.files])
    return run, histories(files.histories, files.format, files.item_base, files.limit)


def here(
    run: LongRun, entries: "Iterator[HistoryRequest | Reject]", serving: "Serving", chosen: "Chosen", workers: int,
    files: HistoryFiles, lists: Lists, facts: "Callable[..., RunFacts]", warn: Callable[[str], None],
) -> Ran:  # fmt: skip
    from ..runtime.runs.inference import InferCounts

    with Bars() as bars, _opened(serving, chosen, workers, warn) as job:
        found = facts(run.checksums(lists.read(files.here(), serving.drafting), bars))
        with run.sink(found, InferCounts(), bars) as sink:
            earlier = sink.counts.served
            run.perform(job, entries, sink, bars, Progress("requests", files.limit))
    return Ran(job.stats, sink.counts, earlier)


def spread_over(
    run: FolderRun, input: "Input", serving: "Serving", chosen: "Chosen", workers: int | None, lists: Lists,
    facts: "Callable[..., RunFacts]",
) -> Ran:  # fmt: skip
    from ..runtime.runs.inference import InferCounts
    from ..runtime.stats import DecodeStats

    stats, input = DecodeStats(chosen.items[1].length), input.in_windows(chosen.batching.size)
    nodes = NodeSide.of(chosen.bundle, chosen.engine, chosen.threads, serving.drafting.pool)
    with Bars() as bars:
        read = run.checksums(lists.read(input.files, serving.drafting), bars)
        found = facts(read, partition=input.partition)
        served = run.perform(found, InferCounts(), stats, serving.anywhere(), input, nodes, workers, bars)
    return Ran(stats, *served)


@contextmanager
def _opened(serving: "Serving", chosen: "Chosen", workers: int, warn: Callable[[str], None]) -> Iterator["Inference"]:
    """What serves, its engines loaded: in this process, or in several; chosen: of it.

    In the end it keeps for the next run what it learned.
    """
    from ..runtime.runs.shared import SharedInference
    from ..runtime.runs.workers import Workers

    if workers == 1:
        own = serving.here(chosen, warn)
        try:
            yield own
        finally:
            _tell(own.keep(), warn)
        return
    with Workers.started(workers, serving) as started:
        shared = SharedInference(chosen, serving.options, started, warn)
        yield shared
        _tell(shared.keep(), warn)


def _tell(fault: str, warn: Callable[[str], None]) -> None:
    if fault:
        warn(fault)


def facts_of(
    bundle: "Bundle", engine: str, files: HistoryFiles, lists: Lists, verification: "Verification",
    drafting: "Drafting", batching: "Batching", read: dict[str, str | None], **spread: int,
) -> "RunFacts":  # fmt: skip
    """What must be the same where an interrupted run is gone on with; spread: how, over several machines."""
    from ..runtime.runs.log import RunFacts, engine_identity

    shape = drafting.shape
    return RunFacts(
        verb="infer", bundle=bundle.manifest.checksum, engine=engine_identity(bundle, engine), read=read,
        options=vars(verification) | {
            "top_k": lists.top_k, "exclude_history": lists.exclude_history, "drafter": drafting.drafter,
            "speculation": drafting.speculation, "draft_width": shape and shape.width,
            "draft_length": shape and shape.length,
            "batch_size": batching.size, "format": files.format, "item_base": files.item_base, "limit": files.limit,
            "stats": lists.stats, "when_empty": lists.when_empty, "verify_sample": lists.verify_sample,
        } | spread,
    )  # fmt: skip
