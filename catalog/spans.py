"""Spans of numbers, one after another: what a flat array holds of several."""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def spans(start: NDArray[np.integer], count: NDArray[np.integer]) -> tuple[Int64, Int64, Int64]:
    """The numbers start[i], start[i] + 1, ... (count[i] of them), one span after another.

    Returns each number's i [m], the numbers [m], and where every span begins among them [n].
    """
    which, begin = np.arange(len(count)).repeat(count), count.cumsum() - count
    return which, np.arange(len(which)) + (start - begin)[which], begin
