"""The cells of never_loses, its ratios, and the catalogs that it makes up."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.speed.made_pairs import ITEMS, identifiers
from benchmarks.speed.never_loses import CELLS, ratio


def test_the_cells_hold_every_extreme() -> None:
    assert len(CELLS) == 24
    assert {cell.k for cell in CELLS.values()} == {1, 5, 10, 20}
    assert {cell.batch for cell in CELLS.values()} == {1, 8, 32}
    assert {cell.prompt for cell in CELLS.values()} == {20, 80, 400}
    assert {cell.levels for cell in CELLS.values()} == {3, 4, 8, 16, 32}


def test_ratios_are_pooled_and_of_cells() -> None:
    """A long cell that loses and a short one that wins: pooled by time, and cell by cell."""
    long = np.tile([10.0, 12.0], (30, 1))
    short = np.tile([1.0, 0.5], (30, 1))
    pooled, mean = ratio([long, short])
    assert pooled.value == pytest.approx(12.5 / 11)
    assert mean.value == pytest.approx((1.2 * 0.5) ** 0.5)
    assert pooled.low == pytest.approx(pooled.high)  # no batch differs from another


def test_the_interval_holds_what_batches_do() -> None:
    rng = np.random.default_rng(0)
    plain = rng.uniform(1, 2, 400)
    pooled, _ = ratio([np.stack([plain, plain * rng.uniform(0.8, 1.2, 400)], axis=1)])
    assert pooled.low < 1 < pooled.high
    assert 0.005 < pooled.high - pooled.low < 0.05


@pytest.mark.parametrize("levels", [3, 32])
def test_identifiers_branch_at_every_depth(levels: int) -> None:
    named = identifiers(levels, np.random.default_rng(levels))
    assert len({tuple(identifier) for identifier in named}) == ITEMS
    assert {len(identifier) for identifier in named} == {levels}
    prefixes = [len({tuple(identifier[:depth]) for identifier in named}) for depth in range(levels + 1)]
    assert all(before < after for before, after in pairwise(prefixes))
