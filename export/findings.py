"""What was wrong with a graph, in words: which calls of it were, and which tokens in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scenes import BATCH, FAR, LONG_ONE, Scene


@dataclass(frozen=True)
class Case:
    """One scene, asked in one or several calls."""

    name: str
    scene: Scene
    calls: int
    wrong: NDArray[np.bool_]  # [B, T]: slots that the graph and its model do not agree on

    @property
    def failed(self) -> bool:
        return bool(self.wrong.any())

    @property
    def first(self) -> int:
        """The lowest position that is wrong."""
        return int(self.scene.positions[self.wrong].min())

    @property
    def in_prompt(self) -> bool:
        """Whether a token is wrong that no branch lies before."""
        return bool((self.wrong & (self.scene.depths < self.scene.prompts[:, None])).any())


def finding(cases: Sequence[Case]) -> str:
    """What the cases that failed have in common and the others have not."""
    failed = [case for case in cases if case.failed]
    names = {case.name for case in failed}
    whole = [case for case in failed if case.calls == 1]
    if not whole:
        return "Right where all tokens come in one call, wrong where some are cached"
    if names == {FAR}:
        return f"Right in the first positions, wrong at the end of the context (from position {failed[0].first} on)"
    if names == {LONG_ONE}:
        return (
            f"Right in short sequences; in long ones wrong from position {min(case.first for case in failed)} on: a "
            "window, or positions that are scaled, differ"
        )
    if names == {BATCH}:
        return "Right in a batch of one, wrong beside prompts of other lengths: padding is seen"
    if not any(case.in_prompt for case in failed):
        return (
            "Right in whole sequences, wrong in the trees behind them: tokens see others than their ancestors, or "
            "their positions are the slots they lie in"
        )
    first = min(case.first for case in failed if case.name != FAR)
    return "Wrong from the first token on" if first == 0 else f"Right up to position {first - 1}, wrong from there on"
