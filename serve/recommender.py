"""The public face for hosts: requests one at a time, from any thread or event loop, answered by futures."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Self, TypedDict, Unpack

from numpy.typing import ArrayLike

from ..catalog import checks
from ..engines.bundle.items import Bundle
from ..runtime.arguments import checked_verification
from ..runtime.encoding import check_k
from ..runtime.options import Drafting, EngineChoice, Verification
from ..runtime.recommender import Recommender
from ..runtime.search.filters import ItemFilter
from ..runtime.types import DrafterKind, Int64, Mode, Recommendation, Request
from .arrays import Float32, array_requests, as_arrays
from .editions import Edition, Lane
from .errors import Closed, Overloaded
from .options import Serving
from .tickets import Served as Served
from .tickets import Ticket
from .worker import Worker


class Asking(TypedDict, total=False):
    """What is asked besides the history; see `AsyncRecommender.submit`."""

    k: int
    user: str | int | None
    item_filter: ItemFilter | None
    exclude_history: bool
    verification: Verification | None
    timeout: float | None
    priority: int


class AsyncRecommender:
    """Takes requests one at a time and batches them. Its answers are those of `Recommender`, whoever shares the batch.

    Safe to share between threads and event loops. `close` frees what it holds; it is a context manager.
    """

    def __init__(self, edition: Edition, worker: Worker | None = None, *, serving: Serving | None = None) -> None:
        """worker: whose thread serves, shared with others on the same device; None: one of its own."""
        self._edition: Edition | None = edition
        self._own = worker is None
        self.worker = worker or Worker(serving)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        *,
        engine: EngineChoice | str | None = None,
        drafting: Drafting | DrafterKind | None = None,
        verification: Verification | Mode | None = None,
        serving: Serving | None = None,
    ) -> Self:
        """Open a bundle's engines; see `Recommender.open`. serving: how requests share calls."""
        serving = serving or Serving()
        recommender = Recommender.open(
            bundle, engine=engine, drafting=drafting, verification=verification, batching=serving.batching
        )
        return cls(Edition("model", "1", "1", recommender), serving=serving)

    @property
    def edition(self) -> Edition:
        """What new requests are served by."""
        if self._edition is None:
            raise Closed("this recommender is closed. Open another one.")
        return self._edition

    def use(self, edition: Edition) -> Edition:
        """Serve new requests by another edition; those that wait or run keep theirs. Returns the one before."""
        before, self._edition = self.edition, edition
        return before

    def pinned(self) -> "AsyncRecommender":
        """What serves now, on the same worker, whatever is served later: for steps that must see one edition."""
        return AsyncRecommender(self.edition, self.worker)

    def submit(
        self,
        history: Iterable[str | int],
        *,
        k: int = 20,
        user: str | int | None = None,
        item_filter: ItemFilter | None = None,
        exclude_history: bool = False,
        verification: Verification | None = None,
        timeout: float | None = None,
        priority: int = 0,
    ) -> "Future[Served]":
        """Ask for a list; returns at once.

        timeout: seconds from now, after which nobody wants it; priority: the largest is served first; verification: in
        place of the one this was opened with; the rest as of `Recommender.encode`. Raises `HistoryError` and
        `OptionError` for what cannot be asked, `Overloaded` where too many wait and `Closed`. The future raises
        `DeadlinePassed`, `EngineError` where the engine fails for this request, or `Closed`. Cancelling it takes the
        request out before its next round.
        """
        edition = self.edition
        k = check_k(k, edition.recommender.max_k)
        verification = None if verification is None else checked_verification(verification)
        lane, seed = edition.lane(verification), (verification or edition.recommender.verification).seed
        request = edition.recommender.encode(
            history, k=k, user=user, item_filter=item_filter, exclude_history=exclude_history
        )
        return self._enqueued(replace(request, seed=seed or 0), lane, timeout, priority).future

    def submit_arrays(
        self, tokens: ArrayLike, lengths: ArrayLike, k: int = 20, *, timeout: float | None = None, priority: int = 0
    ) -> "list[Future[Served]]":
        """As `submit`, of prompts as token ids [B, P], `lengths` [B] of each row: a future for every one."""
        edition = self.edition
        k, lane, seed = check_k(k, edition.recommender.max_k), edition.lane(None), edition.recommender.verification.seed
        requests = array_requests(edition.recommender, tokens, lengths, k)
        futures: list[Future[Served]] = []
        try:
            for request in requests:
                futures.append(self._enqueued(replace(request, seed=seed or 0), lane, timeout, priority).future)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return futures

    def recommend_arrays(
        self, tokens: ArrayLike, lengths: ArrayLike, k: int = 20, *, timeout: float | None = None, priority: int = 0
    ) -> tuple[Int64, Float32]:
        """Lists as arrays: items int64 [B, K], their places in the catalog (-1: no more), and scores float32 [B, K].

        tokens int64 [B, P]: prompts, of each row the first `lengths` int64 [B]. Blocks until all are answered; raises
        what the first of them raises that has no answer (the others are cancelled), and what `submit` does.
        """
        now = self.pinned()
        futures = now.submit_arrays(tokens, lengths, k, timeout=timeout, priority=priority)
        try:
            found = [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return as_arrays(now.edition.recommender, [served.recommendation for served in found], k)

    def _enqueued(self, request: Request, lane: Lane, timeout: float | None, priority: int) -> Ticket:
        deadline = None if timeout is None else monotonic() + checks.seconds(timeout, "timeout")
        ticket = Ticket(request, lane, checks.whole_number(priority, "priority", -(2**31), 2**31), deadline)
        try:
            self.worker.waiting.put(ticket)
        except Overloaded:
            self.worker.observer.refused(lane.edition.model)
            raise
        return ticket

    async def serve(self, history: Iterable[str | int], **options: Unpack[Asking]) -> Served:
        """As `submit`, awaited; cancelling the task cancels the request."""
        return await asyncio.wrap_future(self.submit(history, **options))

    async def recommend(self, history: Iterable[str | int], **options: Unpack[Asking]) -> Recommendation:
        """As `serve`: the list alone."""
        return (await self.serve(history, **options)).recommendation

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take no more; answer what waits, or refuse it. Returns whether all has ended (a shared worker goes on)."""
        ended = self.worker.close(drain=drain, timeout=timeout) if self._own else True
        self._edition = None
        return ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
