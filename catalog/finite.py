"""Numbers that decide something. NaN is neither above nor below any limit, and max() and sorted() pass over it."""

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import SpecBeamError


def finite(value: float, what: str, remedy: str, error: type[SpecBeamError] = SpecBeamError) -> float:
    """The value of what is named; raises `error`, with the remedy, where it is NaN or infinite."""
    if not isfinite(value):
        raise error(f"{what} is {value}; expected a finite number. {remedy}")
    return float(value)


def all_finite(values: NDArray[Any], what: str, remedy: str, error: type[SpecBeamError] = SpecBeamError) -> None:
    """Raise `error`, as `finite` does, unless all of the values are."""
    unfit = values[~np.isfinite(values)]
    if len(unfit):
        finite(float(unfit[0]), what, remedy, error)


def are_logprobs(values: NDArray[Any]) -> bool:
    """Whether values can be log-probabilities: no NaN, no plus infinity. Minus infinity is a probability of 0."""
    return bool(np.max(values, initial=-np.inf) < np.inf)  # the largest of NaN and anything is NaN


def largest_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest absolute difference; NaN where any of them is none. Equal infinities do not differ."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.where(a == b, 0.0, np.abs(a - b)).max(initial=0.0))
