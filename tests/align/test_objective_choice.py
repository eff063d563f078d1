"""Objectives by name, and their settings."""

from typing import Any

import pytest

from specbeam.align.objectives import OBJECTIVES, AtSpeedR, AtSpeedS, find_objective
from specbeam.catalog.errors import OptionError


def test_settings_that_are_not_given_are_the_defaults() -> None:
    for name, kind in OBJECTIVES.items():
        assert find_objective(name, alpha=None, temperature=None, softened=None, top_k=20) == kind()
    assert find_objective("atspeed-s", top_k=5) == AtSpeedS(top_k=5)
    assert find_objective("sft", top_k=5) == OBJECTIVES["sft"]()  # K is the beams' too
    assert AtSpeedR().alpha == 0.7


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("magic", {}, "objective is 'magic', expected one of atspeed-s, atspeed-r, seq-kd"),
        ("path-kd", {"temperature": 2.0}, "path-kd has no temperature. Leave it out"),
        ("atspeed-r", {"softened": 0.1, "row_weight": 1}, "atspeed-r has no row_weight and no softened"),
        ("atspeed-r", {"alpha": 1.5}, "alpha of 1.5; expected a share of the loss, 0 to 1"),
        ("atspeed-r", {"alpha": float("nan")}, "alpha of nan"),
        ("atspeed-r", {"temperature": 0.0}, "temperature of 0; expected a number above 0"),
        ("atspeed-r", {"temperature": float("inf")}, "temperature of inf"),
        ("atspeed-s", {"softened": -1.0}, "temperature of -1"),
        ("atspeed-s", {"top_k": 0}, "top K of 0"),
        ("path-kd", {"top_k": 0}, "top K of 0"),
        ("path-kd", {"row_weight": -1.0}, "row weight of -1; expected"),
        ("path-kd", {"row_weight": float("nan")}, "row weight of nan; expected"),
    ],
)
def test_bad_settings_are_refused(name: Any, chosen: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        find_objective(name, **chosen)


def test_the_command_knows_all_objectives() -> None:
    from specbeam.verbs.learn import OBJECTIVES as choices  # kept there as names: --help must not import torch

    assert set(choices.choices) == set(OBJECTIVES)
