"""When a text has ended: at an end token, at a stop string, or when enough is written."""

from collections.abc import Callable, Sequence

import numpy as np

from .types import Finish, Int64


class Ends:
    """What ends texts, whatever their requests' limits."""

    def __init__(self, tokens: Sequence[int], strings: Sequence[str], decode: Callable[[Int64], str]) -> None:
        """tokens: any of them ends a text and belongs to it; strings: the text ends before the first of them."""
        self._tokens, self.strings, self._decode = np.array(tokens, np.int64), tuple(strings), decode

    def find(self, written: Int64, new: int, limit: int) -> tuple[int, Finish] | None:
        """How many of a text's tokens count, if it has ended within its last `new` ones; None while it goes on."""
        begun = len(written) - new
        found: list[tuple[int, Finish]] = []
        at = np.flatnonzero(np.isin(written[begun:], self._tokens))
        if len(at):
            found.append((begun + int(at[0]) + 1, "end"))
        if len(written) >= limit:
            found.append((limit, "length"))
        if self.strings and self._stopped(written):
            first = next(count for count in range(begun + 1, len(written) + 1) if self._stopped(written[:count]))
            found.append((first, "stop"))
        return min(found, default=None)  # the first; where several come at once, by name: end, length, stop

    def cut(self, text: str) -> str:
        """The text before its first stop string."""
        places = [place for stop in self.strings if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text

    def _stopped(self, written: Int64) -> bool:
        text = self._decode(written)
        return any(stop in text for stop in self.strings)
