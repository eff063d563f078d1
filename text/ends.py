"""When a text has ended: at an end token, at a stop string, or when enough is written."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from .types import Finish, Int64


class Ends:
    """What ends texts, whatever their requests' limits."""

    def __init__(self, tokens: Sequence[int], strings: Sequence[str], decode: Callable[[Int64], str]) -> None:
        """tokens: any of them ends a text and belongs to it; strings: the text ends before the first of them."""
        self.tokens, self.strings, self._decode = np.array(tokens, np.int64), tuple(strings), decode
        self._reach = 8 + max((len(stop.encode()) for stop in strings), default=0)  # a token is a byte at least

    def find(self, written: Int64, new: int, limit: int) -> tuple[int, Finish] | None:
        """How many of a text's tokens count, if it has ended within its last `new` ones; None while it goes on."""
        begun = len(written) - new
        found: list[tuple[int, Finish]] = []
        at = np.flatnonzero(np.isin(written[begun:], self.tokens))
        if len(at):
            found.append((begun + int(at[0]) + 1, "end"))
        if len(written) >= limit:
            found.append((limit, "length"))
        if self.strings:
            stops = (count for count in range(begun + 1, len(written) + 1) if self._stopped(written[:count]))
            found += [(count, "stop") for count in islice(stops, 1)]
        return min(found, default=None)  # the first; where several come at once, by name: end, length, stop

    def cut(self, text: str) -> str:
        """The text before its first stop string."""
        places = [place for stop in self.strings if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text

    def _stopped(self, written: Int64) -> bool:
        """Whether the last token completes a stop string: only the tokens that can be part of it are looked at."""
        text = self._decode(written[-self._reach :])
        return any(stop in text for stop in self.strings)
