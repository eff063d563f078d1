"""What a recommender may take of memory, and which requests that holds at a time."""

from collections.abc import Sequence
from typing import final

import numpy as np

from ..catalog.errors import OptionError
from ..engines.base import Engine
from ..engines.footprint import Footprint
from ..engines.machine.allocator import give_back, give_back_what_is_freed
from ..engines.machine.processors import resident_memory
from ..engines.reading import begin
from .loaded import Loaded
from .search.call_room import CHILD, STORED, CallRoom
from .types import Request

MARGIN = 1 / 10  # of the limit, for what is estimated of nothing: Python's own objects, an allocator's gaps
SPARE_SLOTS = 128  # of a request, for drafts that are not needed in the end
USUAL_CALL = 16  # tokens of a row, at least, that calls of a batch shall hold; one request alone makes do with one


@final
class Room:
    """The memory of one recommender, limited: what is loaded counts, and what its searches hold at a time.

    Whatever the limit, lists are the same: batches become smaller, and calls are cut by tokens and nodes.
    """

    def __init__(self, limit: int, loaded: Loaded, drafted: int = 0) -> None:
        """limit: bytes of this process; drafted: nodes of a request, in all, whose drafts cannot be left out.

        Raises `OptionError` where it leaves nothing for searches, or where it is not known what an engine's calls take,
        or what this process has.
        """
        self.limit, self._drafted = limit, max(drafted, SPARE_SLOTS)
        engines = [engine for engine in (loaded.target, loaded.draft) if engine is not None]
        self._footprints = [_footprint(engine, loaded.engine) for engine in engines]
        give_back_what_is_freed()
        for engine in engines:
            _touch(engine)
        trie = loaded.trie
        self._leaves = trie.identifiers
        self._nodes = np.diff(trie.level_start[1:])  # [L] by depth, from 1
        starts = trie.level_start[:-2]
        widest = np.maximum.reduceat(trie.child_count, starts) if len(starts) else starts
        self._widest = widest  # [L] most children of a node, by its depth from 0
        if self.left() <= 0:
            raise OptionError(
                f"a limit of {size(limit)} leaves nothing for searches: the engines, the catalog and this process have "
                f"{size(resident_memory() or 0)} already, and {MARGIN:.0%} is kept free. Expected at least "
                f"{size(int((resident_memory() or 0) * (1 + 4 * MARGIN)))}."
            )

    def left(self, needed: int = 0) -> int:
        """Bytes that searches may take now; where that is less than needed, what is free has been given back."""
        left = self._left()
        if left < needed:
            give_back()
            left = self._left()
        return left

    def _left(self) -> int:
        resident = resident_memory()
        if resident is None:
            raise OptionError("it is not known how much memory this process has (there is no /proc): leave memory out.")
        return int(self.limit * (1 - MARGIN)) - resident

    def of_batch(self) -> CallRoom:
        """For the searches of one batch."""
        return CallRoom(self.left)

    def parts(self, requests: Sequence[Request], k: int) -> list[list[int]]:
        """Requests in order, as batches that memory holds. A request for which it does not suffice is alone."""
        whole = self.needed(
            max((len(request.prompt) for request in requests), default=0),
            max((self._width(request, k) for request in requests), default=0), len(requests),
        )  # fmt: skip
        left, parts, prompt, width = self.left(whole), list[list[int]](), 0, 0
        for number, request in enumerate(requests):
            prompt, width = max(prompt, len(request.prompt)), max(width, self._width(request, k))
            if not parts or self.needed(prompt, width, len(parts[-1]) + 1) > left:
                parts.append([])
                prompt, width = len(request.prompt), self._width(request, k)
            parts[-1].append(number)
        return parts

    def first(self, requests: Sequence[Request], k: int) -> int:
        """How many of the first requests memory holds at a time; one, where it does not hold any."""
        return len(self.parts(requests, k)[0])

    def why_not(self, request: Request, k: int) -> str | None:
        """Why memory does not suffice for a request alone; None where it does."""
        needed = self.needed(len(request.prompt), self._width(request, k), 1, call=1)
        left = self.left(needed)
        if needed <= left:
            return None
        return (
            f"its search (a prompt of {len(request.prompt)} tokens, a list of {self._width(request, k)}) would take "
            f"about {size(needed)} of memory beside what is loaded, and the limit of {size(self.limit)} leaves "
            f"{size(left)}. Allow more memory, or ask for a shorter list"
        )

    def needed(self, prompt: int, width: int, batch: int, *, call: int = USUAL_CALL) -> int:
        """Bytes that so many requests take at most, of prompts and lists of such lengths, by calls of `call` tokens."""
        nodes = int(np.minimum(self._nodes[:-1], width).sum()) + self._drafted
        beams = np.minimum(np.concatenate(([1], self._nodes[:-1])), width)  # [L] by depth, from 0
        children = np.minimum(beams * self._widest, self._nodes)  # [L] scored at each step
        stored = int(children.sum()) * STORED * len(self._footprints)
        calls = caches = reading = 0
        for each in self._footprints:
            slots, read = each.slots(prompt) + nodes, each.read(prompt)
            calls = max(calls, each.call(1, call, slots, call, read))
            caches += each.cache(1, slots, read)
            reading = max(
                reading, 0 if each.reading is None else each.reading.call(1, read)
            )  # one at a time, if need be
        calls = batch * max(calls, int(children.max(initial=0)) * CHILD)
        return batch * (caches + stored) + max(calls, reading)

    def _width(self, request: Request, k: int) -> int:
        return int(min(request.k or k, self._leaves))


def size(bytes_: int) -> str:
    """Bytes for people."""
    name, unit = next((each for each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if bytes_ >= each[1]), ("bytes", 1))
    return f"{max(bytes_, 0) / unit:.3g} {name}"


def _footprint(engine: Engine, name: str) -> Footprint:
    if engine.footprint is None:
        raise OptionError(
            f"memory is for engines that compute in this process's own: what calls of {name} take is not known. Leave "
            "memory out; of a GPU, smaller batches and shorter lists take less."
        )
    return engine.footprint


def _touch(engine: Engine) -> None:
    """A call of one token: weights that are mapped are in memory from then on."""
    begin(engine, np.zeros((1, 1), np.int64))
