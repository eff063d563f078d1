"""Lists from C and from C++ are those of `Recommender`."""

import numpy as np
import pytest

from cpp_library import Library, fed
from cpp_requests import SETTINGS, assert_list, recommender, requests
from specbeam.runtime import Recommender
from tiny_bundle import Tiny

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def own(tiny: Tiny) -> Recommender:
    return recommender(tiny)


@pytest.mark.parametrize("source", ["lists.c", "lists.cpp"])
def test_lists_are_those_of_python(library: Library, source: str, tiny: Tiny, own: Recommender) -> None:
    asked = requests(tiny, 150)
    told = fed("".join(one.line() for one in asked), library.program(source), tiny.bundle, SETTINGS)
    printed = told.removesuffix("\n\n").split("\n\n")
    for one, lines in zip(asked, printed, strict=True):
        assert_list(lines, one.expected(own), tiny.item_ids)


def test_the_engines_own_verification_and_drafter_are_settings(library: Library, tiny: Tiny, own: Recommender) -> None:
    """A request that says nothing of verification is verified as the engine was opened."""
    settings = '{"threads": 1, "mode": "sampled", "seed": 7, "policy": "gathered", "draft_width": 4}'
    asked = requests(tiny, 150)[1::3]
    unsaid = "".join(one.line().replace(one.line().split("\t")[2], "-") for one in asked)
    told = fed(unsaid, library.program("lists.c"), tiny.bundle, settings)
    from specbeam.runtime import Verification

    sampled = own.verifying(Verification("sampled", seed=7))
    for one, lines in zip(asked, told.removesuffix("\n\n").split("\n\n"), strict=True):
        [expected] = sampled.recommend([one.items], one.k, users=[one.user or ""])
        assert_list(lines, expected, tiny.item_ids)


def test_lists_of_prompts_are_those_of_their_histories(library: Library, tiny: Tiny, own: Recommender) -> None:
    histories = [tiny.item_ids[row : row + 1 + row % 7] for row in range(30)]
    prompts = [own.encode(history).prompt for history in histories]
    lengths = [len(prompt) for prompt in prompts]
    tokens = np.zeros((len(prompts), max(lengths)), np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    words = [*tokens.shape, *lengths, *tokens.ravel().tolist()]
    told = fed(" ".join(map(str, words)), library.program("tokens.cpp"), tiny.bundle, SETTINGS, 30)
    lines = told.splitlines()
    assert lines[:30] == lines[30:]  # by the ABI and by the wrapper
    for line, expected in zip(lines[:30], own.recommend(histories, 30), strict=True):
        read = line.split(" ")
        size = len(expected.items)
        assert read[: 2 * size : 2] == [entry.item for entry in expected.items]
        scores = [float(score) for score in read[1 : 2 * size : 2]]
        assert scores == pytest.approx([entry.score for entry in expected.items], abs=1e-4)
        assert read[2 * size :] == ["-", "-inf"] * (30 - size)
