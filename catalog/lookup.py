"""Where an item is in the catalog: a sorted column of hashes, which is not read but where it is asked."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from typing import final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from .spans import spans
from .texts import TextColumn

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
BLOCK = 1 << 18  # ids that are looked up at a time
HISTORY = 64  # ids that are looked at one by one: for more of them, arrays are faster
NO_TEXT = b"\xff"  # which is no UTF-8, so no id
FEW = 1 << 16  # items of a catalog whose places are a dictionary, too: asking it for one is faster


@final
class Positions(Mapping[str, int]):
    """Item ids to their places in catalog order. A lookup costs the same in any catalog; `find` asks for many at once.

    Every id's CRC-32 stands in a sorted column, beside its place. Of 10 million ids some ten thousand share theirs with
    another: the id itself is compared, always.
    """

    def __init__(self, ids: TextColumn, hashes: NDArray[np.uint32], places: NDArray[np.int32]) -> None:
        """hashes [I]: ascending; places [I]: of the items that they are of."""
        self.ids, self.hashes, self.places = ids, hashes, places

    @classmethod
    def of(cls, ids: TextColumn) -> "Positions":
        """Of a column, in which an id may stand twice; see `repeated`."""
        both = hashed(ids).astype(np.uint64) << np.uint64(32) | np.arange(len(ids), dtype=np.uint64)
        both.sort()
        return cls(ids, (both >> np.uint64(32)).astype(np.uint32), both.astype(np.uint32).astype(np.int32))

    @cached_property
    def _few(self) -> dict[str, int] | None:
        return {text: place for place, text in enumerate(self.ids)} if len(self.ids) <= FEW else None

    def find(self, ids: Sequence[str]) -> Int64:
        """[n] the place of each id; -1 where the catalog has none such."""
        if self._few is not None:
            return np.fromiter(map(self._few.get, ids, repeat(-1)), np.int64, len(ids))
        found = np.full(len(ids), -1)
        for start in range(0, len(ids), BLOCK):
            self._find(ids[start : start + BLOCK], found[start : start + BLOCK])
        return found

    def _find(self, ids: Sequence[str], found: Int64) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else NO_TEXT for text in ids]
        keys = np.fromiter(map(crc32, encoded), np.uint32, len(encoded))
        if len(encoded) <= HISTORY:
            self._find_few(encoded, keys, found)
        else:
            self._find_many(encoded, keys, found)

    def _find_few(self, encoded: list[bytes], keys: NDArray[np.uint32], found: Int64) -> None:
        """As `_find_many`, by a look at each: what a history takes."""
        places = self.places[np.minimum(self.hashes.searchsorted(keys), len(self.hashes) - 1)]
        begins, ends = self.ids.starts[places].tolist(), self.ids.starts[places + 1].tolist()
        raw, others = self.ids.data.data, []
        for i, (text, place, begin, end) in enumerate(zip(encoded, places.tolist(), begins, ends, strict=True)):
            if raw[begin:end] == text:
                found[i] = place
            else:
                others.append(i)
        if others:  # unknown, or not the first of its hash
            rest = np.full(len(others), -1)
            self._find_many([encoded[i] for i in others], keys[others], rest)
            found[others] = rest

    def _find_many(self, encoded: list[bytes], keys: NDArray[np.uint32], found: Int64) -> None:
        lengths, raw = (
            np.fromiter(map(len, encoded), np.int64, len(encoded)),
            np.frombuffer(b"".join(encoded), np.uint8),
        )
        begins = np.cumsum(lengths) - lengths
        asked = np.argsort(keys)  # so that the columns are gone through in their order
        at = self.hashes.searchsorted(keys[asked])
        while len(asked):  # once, but for ids that share a hash
            inside = at < len(self.hashes)
            asked, at = asked[inside], at[inside]
            alike = self.hashes[at] == keys[asked]
            asked, at = asked[alike], at[alike]
            places = self.places[at]
            same = self._is(places, raw, begins[asked], lengths[asked])
            found[asked[same]] = places[same]
            asked, at = asked[~same], at[~same] + 1

    def _is(self, places: NDArray[np.int32], raw: NDArray[np.uint8], begins: Int64, lengths: Int64) -> Bool:
        """Whether items [n] have the ids that stand in `raw`."""
        starts = self.ids.starts[places]
        same: Bool = self.ids.starts[places + 1] - starts == lengths
        which, mine, _ = spans(starts[same], lengths[same])
        alike = self.ids.data[mine] == raw[mine - (starts[same] - begins[same])[which]]
        agree = np.bincount(which, alike, int(np.count_nonzero(same))) == lengths[same]
        same[same] = agree
        return same

    def repeated(self) -> dict[str, list[int]]:
        """Ids that stand more than once, with their places, in the order of the first ones."""
        alike = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        at: defaultdict[str, list[int]] = defaultdict(list)
        for place in sorted({*self.places[alike].tolist(), *self.places[alike + 1].tolist()}):
            at[self.ids[place]].append(place)
        return {text: found for text, found in at.items() if len(found) > 1}

    def __getitem__(self, item: str) -> int:
        if self._few is not None:
            return self._few[item]
        place = int(self.find([item])[0]) if isinstance(item, str) else -1
        if place < 0:
            raise KeyError(item)
        return place

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str) and (item in self._few if self._few is not None else self.find([item])[0] >= 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def hashed(ids: TextColumn) -> NDArray[np.uint32]:
    """[n] the CRC-32 of every id."""
    found, at = np.empty(len(ids), np.uint32), 0
    for block in ids.blocks():
        found[at : at + len(block)] = np.fromiter(map(crc32, block), np.uint32, len(block))
        at += len(block)
    return found
