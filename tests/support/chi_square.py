"""Pearson's goodness-of-fit test, for draws whose distribution is known exactly."""

from collections.abc import Hashable, Mapping

import numpy as np


def misfit(counts: Mapping[Hashable, int], probability: Mapping[Hashable, float]) -> float:
    """Chi-square of what was counted against a distribution, as a share of its 99.9 % quantile: 1 or less fits.

    Outcomes expected fewer than 5 times are taken together. Raises AssertionError where the distribution
    does not sum to 1, or where something was counted that cannot happen.
    """
    assert np.isclose(sum(probability.values()), 1, atol=1e-6), "not a distribution"
    impossible = [outcome for outcome in counts if probability.get(outcome, 0.0) <= 0]
    assert not impossible, f"counted what cannot happen, e.g. {impossible[0]}"
    draws = sum(counts.values())
    observed = np.array([counts.get(outcome, 0) for outcome in probability], float)
    expected = np.array(list(probability.values())) * draws
    rare = expected < 5
    if rare.any():
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return float(((observed - expected) ** 2 / expected).sum()) / quantile(len(expected) - 1)


def quantile(freedom: int, normal: float = 3.0902) -> float:
    """The chi-square quantile at a standard normal one (3.0902: 99.9 %), by Wilson and Hilferty (1931)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + normal * spread**0.5) ** 3)
