"""Which drafts are considered: nodes at each level, as arrays."""

from functools import lru_cache

import numpy as np

from ..types import Int64
from .estimates import GRID
from .plans import Policy

FARTHEST = 16  # levels that a draft reaches ahead at most: depths farther apart are not planned for together
NARROWEST, WIDEST, LEAST_WIDE = 0.5, 8, 16  # drafts' first levels: between these parts of K, or at least up to a number
FURTHER = (1.0, 0.4)  # width of their further levels, in parts of the first's


@lru_cache
def common_shapes(k: int) -> Int64:
    """[1, F, M] nodes at each level, around what lists of k need: the same at all, or fewer behind the first."""
    first = np.array([w for w in GRID if NARROWEST * k <= w <= max(WIDEST * k, LEAST_WIDE)] or GRID[-1:])
    widths = first[:, None, None] * np.array(FURTHER)[:, None]
    shapes = np.repeat(np.maximum(np.ceil(widths), 1), FARTHEST, axis=2).astype(np.int64)
    shapes[:, :, 0] = first[:, None]
    shapes.setflags(write=False)  # remembered, and given to everybody
    return shapes.reshape(1, -1, FARTHEST)


def own_shapes(policy: Policy) -> Int64:
    """[L, 1, M] the widths of a policy's plans."""
    shapes = np.zeros((len(policy), 1, FARTHEST), np.int64)
    for s, plan in enumerate(policy):
        shapes[s, 0, : len(plan.widths)] = plan.widths
    return shapes
