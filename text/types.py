"""What the parts of text generation hand to each other. B requests, n drafted tokens in a flat list."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..catalog import checks
from ..catalog.errors import OptionError

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Mode = Literal["strict", "relaxed"]
Finish = Literal["end", "stop", "length"]  # an end token, a stop string, or as many tokens as were allowed


@dataclass(frozen=True)
class TextVerification:
    """Which drafted tokens pass (LASER/DARE, arXiv 2408.05676).

    strict: the target's most likely token alone, so that the text is that of greedy decoding. relaxed: also one
    that is among the target's `accept_top_k` most likely and has a probability above `threshold`.
    """

    mode: Mode = "strict"
    accept_top_k: int = 2
    threshold: float = 0.1

    def __post_init__(self) -> None:
        checks.check_types(self)
        checks.within(self, 1, accept_top_k=checks.LARGEST)
        if not 0 <= self.threshold < 1:
            raise OptionError(f"got a threshold of {self.threshold!r}; expected a probability from 0 to below 1.")


@dataclass(frozen=True, eq=False)
class TextRequest:
    """One prompt as the engine reads it."""

    prompt: Int64  # [P] token ids
    group: str | None  # whose pool drafts; None: everybody's
    limit: int  # tokens that may be written


class TextStats(msgspec.Struct, frozen=True):
    """What one text cost."""

    target_calls: int  # calls of the target in which this request had tokens
    drafted: int  # tokens that were proposed to it
    accepted: int  # of these, how many are in the text


class Text(msgspec.Struct, frozen=True):
    """What was written behind one prompt."""

    text: str
    tokens: tuple[int, ...]  # the end token included
    finish: Finish
    stats: TextStats


class Accepted(NamedTuple):
    """What one call's verification let pass."""

    node: Int64  # [B] the last drafted token of the longest branch that passed; -1: none did
    bonus: Int64  # [B] the target's own token behind it
    failed: Bool  # [B] the target gave NaN or infinity in place of a log-probability: neither means anything
