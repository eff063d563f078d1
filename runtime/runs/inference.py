"""Inference over history files: a request of each line, and what is written of its answer."""

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Self, final

import msgspec

from ...catalog.errors import HistoryError, OptionError, SpecBeamError
from ...catalog.histories.requests import EmptyHistory, HistoryRequest
from ...catalog.items import Catalog
from ...catalog.records import Reject, RejectLine
from ..encoding import RequestEncoder, check_k
from ..recommender import Recommender
from ..search.filters import ItemFilter
from ..stats import DecodeStats
from ..types import PopularItem, Recommendation, RecommendedItem, Request, RequestFailure, RequestStats
from .item_lists import unknown_ids
from .log import output_kept_in
from .popular import PopularItems
from .recheck import Agreement, Recheck
from .windows import BATCHES_PER_WINDOW, Job, Outcomes, Ready


class ResultLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the output."""

    user: str
    line: int  # of the request in its file
    items: tuple[RecommendedItem | PopularItem, ...]
    stats: RequestStats | None = None
    available: int | None = None  # items that it may be recommended at all, where fewer than it asked for
    popular: bool = False  # no history could be used: these are the items that are popular with others


class InferCounts(Outcomes):
    """What happened to the requests of one run."""

    unknown_items: int = 0  # dropped from histories that had other items
    shortened: int = 0  # histories that the model's context did not hold
    short_lists: int = 0  # requests that may be recommended fewer items than they asked for
    unknown_listed: int = 0  # ids of requests' own allow- and deny-lists that the catalog lacks
    popular: int = 0  # lists of popular items
    ranked_again: int = 0  # lists that were ranked again; of these:
    agreeing: int = 0  # whose items are the same, up to ties
    overlap: float = 0.0  # the sum of `Agreement.overlap`
    difference: float = 0.0  # the sum of `Agreement.difference`
    largest: float = 0.0  # of them

    def agree(self, agreement: Agreement) -> None:
        """Count one list that was ranked again."""
        self.ranked_again += 1
        self.agreeing += agreement.overlap == 1
        self.overlap += agreement.overlap
        self.difference += agreement.difference
        self.largest = max(self.largest, agreement.difference)

    def add(self, other: Self) -> None:
        largest = max(self.largest, other.largest)
        super().add(other)
        self.largest = largest


@dataclass(frozen=True)
class ListOptions:
    """What holds for all requests of a run, unless they say it themselves."""

    k: int
    item_filter: ItemFilter | None = None  # on top of their own
    exclude_history: bool = False  # recommend nothing that a history holds
    stats: bool = False  # write what each list cost
    popular: PopularItems | None = None  # for requests without a usable history; None: they are rejects


class Asked(NamedTuple):
    """A request, and the line it comes from."""

    entry: HistoryRequest
    request: Request


class Served(NamedTuple):
    """A list, and how it compares with that of the reference, if it was compared."""

    answer: Recommendation
    agreement: Agreement | None


class Inference(Job[HistoryRequest, Asked, Served, InferCounts]):
    """A list for each history."""

    stats: DecodeStats  # of all lists that were made

    def __init__(
        self, encoder: RequestEncoder, batch_size: int, options: ListOptions, warn: Callable[[str], None]
    ) -> None:
        """`warn` is told of requests that allow nothing, because the catalog has none of the items they allow."""
        self.ahead = BATCHES_PER_WINDOW * batch_size
        self._encoder, self._options, self._warn = encoder, options, warn

    @abstractmethod
    def batches(self, requests: list[Asked]) -> Iterator[dict[int, Served | RequestFailure]]:
        """See `Job.batches`: as `batched` says."""

    @abstractmethod
    def keep(self) -> str:
        """At the end: see `Recommender.keep`."""

    def counts(self) -> InferCounts:
        return InferCounts()

    def encode(self, entry: HistoryRequest | Reject, counts: InferCounts) -> Asked | Reject | Ready:
        if isinstance(entry, Reject):
            empty = entry.request if isinstance(entry, EmptyHistory) else None
            return self._popular(empty, counts) if empty is not None and self._options.popular else entry
        if self._options.popular and not any(item in self._encoder.catalog.position for item in entry.items):
            return self._popular(entry, counts)
        try:
            request = self._encoder.encode(
                entry.items, k=entry.k, user=entry.user, item_filter=self._filter(entry),
                exclude_history=self._options.exclude_history or entry.exclude_history,
            )  # fmt: skip
            return Asked(entry, request)
        except (HistoryError, OptionError) as error:
            return Reject(entry.line, str(error), _raw(entry), entry.source)

    def line(self, entry: HistoryRequest, answer: Served, counts: InferCounts) -> ResultLine:
        list_, agreement = answer
        counts.unknown_items += list_.unknown_items
        counts.shortened += list_.shortened
        counts.short_lists += list_.available is not None
        counts.unknown_listed += _unknown_listed(entry, self._encoder.catalog, self._warn)
        if agreement is not None:
            counts.agree(agreement)
        stats = list_.stats if self._options.stats else None
        return ResultLine(entry.user, entry.line, list_.items, stats, list_.available)

    def failed(self, entry: HistoryRequest, reason: str) -> RejectLine:
        return RejectLine(entry.source, entry.line, reason, _raw(entry))

    def _filter(self, entry: HistoryRequest) -> ItemFilter:
        own, shared = ItemFilter(entry.allow, entry.deny), self._options.item_filter
        return own if shared is None else shared.both(own)

    def _popular(self, entry: HistoryRequest, counts: InferCounts) -> Reject | Ready:
        """What others have, for a request without a usable history."""
        assert self._options.popular is not None
        try:
            k = self._options.k if entry.k is None else check_k(entry.k, self._encoder.max_k)
        except OptionError as error:
            return Reject(entry.line, str(error), _raw(entry), entry.source)
        items = self._options.popular.best(k, self._encoder.allowed(self._filter(entry)))
        counts.popular += 1
        counts.short_lists += len(items) < k
        counts.unknown_listed += _unknown_listed(entry, self._encoder.catalog, self._warn)
        return Ready(
            ResultLine(entry.user, entry.line, items, None, len(items) if len(items) < k else None, popular=True)
        )


@final
class OwnInference(Inference):
    """By engines of this process."""

    def __init__(
        self, recommender: Recommender, options: ListOptions, *, recheck: Recheck | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:  # fmt: skip
        """recheck: ranks a share of the lists again."""
        super().__init__(recommender.encoder, recommender.batch_size, options, warn)
        self._recommender, self._recheck = recommender, recheck
        self.stats = recommender.stats

    def alike(self) -> "OwnInference":
        """The same with statistics of its own."""
        recommender = self._recommender.variant(self._recommender.planning, self._recommender.batch_size)
        return OwnInference(recommender, self._options, recheck=self._recheck, warn=self._warn)

    def keep(self) -> str:
        return self._recommender.keep()

    def batches(self, requests: list[Asked]) -> Iterator[dict[int, Served | RequestFailure]]:
        k, asked = self._options.k, [each.request for each in requests]
        for batch in self._recommender.batches(asked, k):
            found = self._recheck.agreements(asked, batch, k) if self._recheck else {}
            yield {
                number: answer if isinstance(answer, RequestFailure) else Served(answer, found.get(number))
                for number, answer in batch.items()
            }


def write_line(file: IO[bytes], line: msgspec.Struct) -> None:
    """Write one JSON line."""
    file.write(msgspec.json.encode(line) + b"\n")


def beside(output: Path, ending: str) -> Path:
    """The file whose name is an output's with an ending; raises `SpecBeamError` for what is no file's name."""
    if not output.name:
        raise SpecBeamError(f"--output {output}: expected the name of a file, or of a folder to make.")
    return output.with_name(f"{output.name}{ending}")


def check_outputs(output: Path, rejects: Path | None, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse, before any work, to write over an input or (without --overwrite) over anything."""
    if rejects is not None and (str(rejects) == "-" or rejects.resolve() == output.resolve()):
        raise SpecBeamError(f"--rejects {rejects}: expected the name of a file that is not the output.")
    for path in (output, rejects):
        if path is None or str(path) == "-":
            continue
        if any(path.resolve() == given.resolve() for given in inputs):
            raise SpecBeamError(f"{path} is an input as well. Choose another output.")
        if os.path.lexists(path) and not path.is_file():  # a device or a pipe would be replaced, not written to
            raise SpecBeamError(f"{path} is not a regular file. Choose another name, or - for standard output.")
        if (other := output_kept_in(path)) is not None:
            raise SpecBeamError(f"{path} is where the interrupted run of {other} keeps its lines. Choose another name.")
        if path.exists() and not overwrite:
            raise SpecBeamError(f"{path} exists already. Choose another name or pass --overwrite to replace it.")


def _raw(entry: HistoryRequest) -> str:
    """A request as a line of JSON."""
    allow = None if entry.allow is None else sorted(entry.allow)
    asked = {"k": entry.k, "allow": allow, "deny": sorted(entry.deny) or None}
    asked["exclude_history"] = entry.exclude_history or None
    given = {name: value for name, value in asked.items() if value is not None}
    raw = json.dumps({"user": entry.user, "items": entry.items, **given}, ensure_ascii=False)
    # an item that is half a surrogate pair (JSON can write one) becomes its escape again
    return raw.encode("utf-8", "backslashreplace").decode()


def _unknown_listed(entry: HistoryRequest, catalog: Catalog, warn: Callable[[str], None]) -> int:
    """How many ids of a request's own lists the catalog lacks."""
    if entry.allow is None and not entry.deny:
        return 0
    allow, deny = (unknown_ids(catalog, ids) for ids in (entry.allow or frozenset(), entry.deny))
    if allow and len(allow) == len(entry.allow or ()):
        warn(
            f"{entry.source}, line {entry.line}: the catalog has none of the {len(allow)} items that user {entry.user} "
            f"allows (e.g. {min(allow)[:80]!r}), so the list is empty; expected such as {catalog.item_ids[0]!r}"
        )
    return len(allow) + len(deny)
