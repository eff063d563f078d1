"""Inference whose batches are served by several processes, each with engines of its own."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, final

from ...catalog.histories.requests import HistoryRequest
from ..chosen import Chosen
from ..encoding import batched
from ..options import Batching, Drafting, EngineChoice, Verification
from ..recommender import Recommender
from ..stats import DecodeStats
from ..types import RequestFailure
from .inference import Asked, Inference, ListOptions, OwnInference, Served
from .recheck import Recheck
from .workers import Workers


class BatchServed(NamedTuple):
    """What a worker makes of a batch."""

    answers: list[Served | RequestFailure]  # in the order of what was asked
    stats: DecodeStats  # of this batch
    fault: str = ""  # of the end, see `Recommender.keep`


BatchServer = Callable[[list[HistoryRequest]], BatchServed]  # no lines: that was all


@dataclass(frozen=True)
class Serving:
    """What serves, as it crosses to a process that opens it there."""

    bundle: Path
    engine: EngineChoice
    drafting: Drafting
    verification: Verification
    batching: Batching
    options: ListOptions
    verify_sample: float | None = None  # share of the lists that are ranked again

    def __call__(self) -> BatchServer:
        """Open it, to serve one batch at a time. Raises what `Recommender.open` and `Recheck.open` do."""
        job = self.here(self._chosen())
        return lambda entries: _served(job.alike(), entries)

    def anywhere(self) -> "Serving":
        """The same with absolute paths: for another folder, or another machine that has the same ones."""
        pool = self.drafting.pool
        drafting = replace(self.drafting, pool=Path(pool).absolute()) if isinstance(pool, str | Path) else self.drafting
        return replace(self, bundle=self.bundle.absolute(), drafting=drafting)

    def jobs(self, warn: Callable[[str], None]) -> Callable[[], OwnInference]:
        """Open it, for one partition at a time: see `partition.Opens`. Raises as a call does."""
        return self.here(self._chosen(), warn).alike

    def here(self, chosen: Chosen, warn: Callable[[str], None] = lambda message: None) -> OwnInference:
        """Open its engines, as they were chosen."""
        recommender, recheck = Recommender.of(chosen), None
        if self.verify_sample:
            recheck = Recheck.open(
                chosen.bundle, self.verify_sample, chosen.verification, batching=self.batching, threads=chosen.threads
            )
        popular = self.options.popular and self.options.popular.within(chosen.items[0])
        return OwnInference(recommender, replace(self.options, popular=popular), recheck=recheck, warn=warn)

    def _chosen(self) -> Chosen:
        return Chosen.of(
            self.bundle, engine=self.engine, drafting=self.drafting, verification=self.verification,
            batching=self.batching,
        )  # fmt: skip


def _served(job: OwnInference, entries: list[HistoryRequest]) -> BatchServed:
    """One batch, of lines that are requests."""
    if not entries:
        return BatchServed([], job.stats, job.keep())
    requests = [asked for entry in entries if isinstance(asked := job.encode(entry, job.counts()), Asked)]
    (batch,) = job.batches(requests)
    return BatchServed([batch[number] for number in range(len(requests))], job.stats)


@final
class SharedInference(Inference):
    """By workers. Here lines become requests, and batches of them: lines cross to the workers, which are small, while a
    request holds its filter's masks and the trie."""

    def __init__(
        self, chosen: Chosen, options: ListOptions, workers: Workers[list[HistoryRequest], BatchServed],
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:  # fmt: skip
        """chosen: what the workers have opened, `Serving`."""
        super().__init__(chosen.encoder(), chosen.batching.size, options, warn)
        self.stats = DecodeStats(chosen.items[1].length)
        self._batch_size, self._workers = chosen.batching.size, workers

    def keep(self) -> str:
        return next(filter(None, [served.fault for served in self._workers.each([])]), "")

    def batches(self, requests: list[Asked]) -> Iterator[dict[int, Served | RequestFailure]]:
        return self.answers(iter([requests]))

    def answers(self, windows: Iterator[list[Asked]]) -> Iterator[dict[int, Served | RequestFailure]]:
        given = deque[list[int]]()  # the requests' numbers in their windows, of batches that workers have

        def pieces() -> Iterator[list[HistoryRequest]]:
            for requests in windows:
                for batch in batched([each.request for each in requests], self._batch_size):
                    given.append(batch)
                    yield [requests[number].entry for number in batch]

        for served in self._workers.results(pieces()):
            self.stats.merge(served.stats)
            yield dict(zip(given.popleft(), served.answers, strict=True))
