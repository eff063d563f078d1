"""Inference over history files: a stream of requests in, one JSON line a request out, in the same order."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import msgspec

from ..catalog.errors import HistoryError, SpecRecError
from ..catalog.history import HistoryRequest, Reject
from .recommender import Recommender
from .types import Recommendation, RecommendedItem, Request, RequestStats

BATCHES_PER_WINDOW = 32  # requests read ahead, so that those of one length share a batch


class ResultLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the output."""

    user: str
    line: int  # of the request in its file
    items: tuple[RecommendedItem, ...]
    stats: RequestStats | None = None


class RejectLine(msgspec.Struct, frozen=True):
    """One line of the rejects file."""

    file: str
    line: int
    reason: str
    raw: str


@dataclass
class InferCounts:
    """What happened to the requests of one run."""

    served: int = 0
    rejected: int = 0
    unknown_items: int = 0  # dropped from histories that had other items
    shortened: int = 0  # histories that the model's context did not hold


def infer(
    recommender: Recommender,
    entries: Iterable[HistoryRequest | Reject],
    k: int,
    counts: InferCounts,
    *,
    stats: bool = False,
    progress: Callable[[int], None] = lambda served: None,
) -> Iterator[ResultLine | RejectLine]:
    """Serve a stream of requests. Yields results in input order, and rejects as they are met.

    `progress` is told how many requests have been served, after every batch.
    """
    entries = iter(entries)
    while window := list(islice(entries, BATCHES_PER_WINDOW * recommender.batch_size)):
        asked: list[tuple[HistoryRequest, Request]] = []
        for entry in window:
            request = entry if isinstance(entry, Reject) else _encode(recommender, entry)
            if isinstance(request, Reject):
                counts.rejected += 1
                yield RejectLine(request.source, request.line, request.reason, request.raw)
            else:
                assert isinstance(entry, HistoryRequest)
                asked.append((entry, request))
        requests = [request for _, request in asked]
        results = recommender.run(requests, k, progress=_shifted(progress, counts.served))
        for (entry, _), result in zip(asked, results, strict=True):
            counts.served += 1
            counts.unknown_items += result.unknown_items
            counts.shortened += result.shortened
            yield _line(entry, result, stats)


def write_line(file: IO[bytes], line: ResultLine | RejectLine) -> None:
    """Write one JSON line."""
    file.write(msgspec.json.encode(line) + b"\n")


def check_outputs(output: Path, rejects: Path | None, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse, before any work, to write over an input or (without --overwrite) over anything."""
    if rejects is not None and (str(rejects) == "-" or rejects.resolve() == output.resolve()):
        raise SpecRecError(f"--rejects {rejects}: expected the name of a file that is not the output.")
    for path in (output, rejects):
        if path is None or str(path) == "-":
            continue
        if any(path.resolve() == given.resolve() for given in inputs):
            raise SpecRecError(f"{path} is an input as well. Choose another output.")
        if path.exists() and not path.is_file():  # a device or a pipe would be replaced, not written to
            raise SpecRecError(f"{path} is not a regular file. Choose another name, or - for standard output.")
        if path.exists() and not overwrite:
            raise SpecRecError(f"{path} exists already. Choose another name or pass --overwrite to replace it.")


def _shifted(progress: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda done: progress(before + done)


def _encode(recommender: Recommender, entry: HistoryRequest) -> Request | Reject:
    try:
        return recommender.encode(entry.items)
    except HistoryError as error:
        # an item that is half a surrogate pair (JSON can write one) becomes its escape again
        raw = json.dumps({"user": entry.user, "items": entry.items}, ensure_ascii=False)
        return Reject(entry.line, str(error), raw.encode("utf-8", "backslashreplace").decode(), entry.source)


def _line(entry: HistoryRequest, result: Recommendation, stats: bool) -> ResultLine:
    return ResultLine(entry.user, entry.line, result.items, result.stats if stats else None)
