"""Inference over history files: a stream of requests in, one JSON line a request out, in the same order."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import msgspec

from ..catalog.errors import HistoryError, OptionError, SpecBeamError
from ..catalog.history import HistoryRequest, Reject
from ..catalog.items import Catalog
from ..catalog.packed import refuse_packed
from .filters import ItemFilter
from .recommender import Recommender
from .types import Recommendation, RecommendedItem, Request, RequestFailure, RequestStats

BATCHES_PER_WINDOW = 32  # requests read ahead, so that those of one length share a batch
HOPELESS = 8  # requests in succession, and whole batches, for which an engine gives no numbers: then it is at fault


class ResultLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the output."""

    user: str
    line: int  # of the request in its file
    items: tuple[RecommendedItem, ...]
    stats: RequestStats | None = None
    available: int | None = None  # items that it may be recommended at all, where fewer than it asked for


class RejectLine(msgspec.Struct, frozen=True):
    """One line of the rejects file."""

    file: str
    line: int
    reason: str
    raw: str


@dataclass
class Outcomes:
    """What kept requests of one run from being answered."""

    rejected: int = 0  # lines that are no request
    failed: int = 0  # requests for which the engine gave no numbers
    reason: str = ""  # of a failure
    stopped: bool = False  # before the end, because whole batches failed
    _succession: int = 0

    def see(self, batch: Collection[object]) -> None:
        """Take note of a batch's results, and whether it is of use to go on."""
        failures = [result for result in batch if isinstance(result, RequestFailure)]
        self.failed += len(failures)
        self.reason = failures[0].reason if failures else self.reason
        self._succession = self._succession + len(failures) if len(failures) == len(batch) else 0
        self.stopped = self._succession >= HOPELESS


@dataclass
class InferCounts(Outcomes):
    """What happened to the requests of one run."""

    served: int = 0
    unknown_items: int = 0  # dropped from histories that had other items
    shortened: int = 0  # histories that the model's context did not hold
    short_lists: int = 0  # requests that may be recommended fewer items than they asked for
    unknown_listed: int = 0  # ids of requests' own allow- and deny-lists that the catalog lacks
    cut_files: int = 0  # files that could not be read to their end


def infer(
    recommender: Recommender,
    entries: Iterable[HistoryRequest | Reject],
    k: int,
    counts: InferCounts,
    *,
    item_filter: ItemFilter | None = None,
    exclude_history: bool = False,
    stats: bool = False,
    progress: Callable[[int], None] = lambda served: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[ResultLine | RejectLine]:
    """Serve a stream of requests. Yields results in input order, and rejects as they are met.

    A request for which the engine gives no numbers becomes a reject, too; where whole batches do, of at least
    `HOPELESS` requests in succession, `counts.stopped` is set and the others are not tried.

    k: items for requests that do not say it themselves. item_filter: for all requests, on top of their own.
    exclude_history: recommend nothing that a history holds.
    `progress` is told how many requests are done, after every batch; `warn` of requests that allow nothing,
    because the catalog has none of the items that they allow.
    """
    entries, before = iter(entries), 0
    while window := list(islice(entries, BATCHES_PER_WINDOW * recommender.batch_size)):
        asked: list[tuple[HistoryRequest, Request]] = []
        for entry in window:
            request = entry if isinstance(entry, Reject) else _encode(recommender, entry, item_filter, exclude_history)
            if isinstance(request, Reject):
                counts.rejected += 1
                counts.cut_files += request.rest
                yield RejectLine(request.source, request.line, request.reason, request.raw)
            else:
                assert isinstance(entry, HistoryRequest)
                counts.unknown_listed += _unknown_listed(entry, recommender.catalog, warn)
                asked.append((entry, request))
        results: dict[int, Recommendation | RequestFailure] = {}
        for batch in recommender.batches([request for _, request in asked], k):
            results |= batch
            counts.see(batch.values())
            progress(before + len(results))
            if counts.stopped:
                break
        before += len(results)
        for number in sorted(results):
            entry, result = asked[number][0], results[number]
            if isinstance(result, RequestFailure):
                yield RejectLine(entry.source, entry.line, result.reason, _raw(entry))
                continue
            counts.served += 1
            counts.unknown_items += result.unknown_items
            counts.shortened += result.shortened
            counts.short_lists += result.available is not None
            yield _line(entry, result, stats)
        if counts.stopped:
            return


def write_line(file: IO[bytes], line: ResultLine | RejectLine) -> None:
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
        if path.exists() and not path.is_file():  # a device or a pipe would be replaced, not written to
            raise SpecBeamError(f"{path} is not a regular file. Choose another name, or - for standard output.")
        if path.exists() and not overwrite:
            raise SpecBeamError(f"{path} exists already. Choose another name or pass --overwrite to replace it.")


@dataclass(frozen=True)
class ItemList:
    """A file of item ids, one a line."""

    path: Path
    ids: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "ItemList":
        """Raises `SpecBeamError` for a file that cannot be read."""
        try:
            data = path.read_bytes()
            refuse_packed(str(path), data, SpecBeamError)
            return cls(path, frozenset(line.strip() for line in data.decode("utf-8-sig").split("\n")) - {""})
        except OSError as error:
            raise SpecBeamError(f"{path}: cannot be read: {error.strerror or error}. Check the path.") from None
        except UnicodeDecodeError:
            raise SpecBeamError(f"{path}: not UTF-8; expected item ids, one a line. Save the file as UTF-8.") from None

    def known(self, catalog: Catalog, *, warn: Callable[[str], None]) -> frozenset[str]:
        """The ids that the catalog has; `warn` is told of others. Raises `SpecBeamError` if it has none of them."""
        unknown = sorted(self.ids - catalog.position.keys())
        if len(unknown) == len(self.ids):
            got = f"{unknown[0][:80]!r}, for example" if unknown else "an empty file"
            raise SpecBeamError(
                f"{self.path}: no item of the catalog in it (got {got}). Expected item ids, one a line, such as "
                f"{catalog.item_ids[0]!r}."
            )
        if unknown:
            warn(
                f"{self.path}: {len(unknown)} of {len(self.ids)} items are not in the catalog "
                f"(e.g. {unknown[0][:80]!r}); they are ignored"
            )
        return self.ids.difference(unknown)


def filter_of(
    allow: ItemList | None, deny: ItemList | None, catalog: Catalog, *, warn: Callable[[str], None]
) -> ItemFilter | None:
    """A filter for all requests; None without lists. See `ItemList.known`."""
    if allow is None and deny is None:
        return None
    allowed, denied = (None if given is None else given.known(catalog, warn=warn) for given in (allow, deny))
    return ItemFilter(allowed, denied or frozenset())


def _encode(
    recommender: Recommender, entry: HistoryRequest, shared: ItemFilter | None, exclude_history: bool
) -> Request | Reject:
    own = ItemFilter(entry.allow, entry.deny)
    try:
        return recommender.encode(
            entry.items, k=entry.k, user=entry.user, exclude_history=exclude_history or entry.exclude_history,
            item_filter=own if shared is None else shared.both(own),
        )  # fmt: skip
    except (HistoryError, OptionError) as error:
        return Reject(entry.line, str(error), _raw(entry), entry.source)


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
    allow, deny = (ids.difference(catalog.position) for ids in (entry.allow or frozenset(), entry.deny))
    if allow and allow == entry.allow:
        warn(
            f"{entry.source}, line {entry.line}: the catalog has none of the {len(allow)} items that user {entry.user} "
            f"allows (e.g. {min(allow)[:80]!r}), so the list is empty; expected such as {catalog.item_ids[0]!r}"
        )
    return len(allow) + len(deny)


def _line(entry: HistoryRequest, result: Recommendation, stats: bool) -> ResultLine:
    return ResultLine(entry.user, entry.line, result.items, result.stats if stats else None, result.available)
