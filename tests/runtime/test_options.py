"""What cannot be combined is refused, with what was got and what to do; everything else is accepted."""

from dataclasses import FrozenInstanceError
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest

from scripted_search import random_catalog
from specbeam.catalog.errors import OptionError, SpecBeamError
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.drafting.drafter import empty_tree
from specbeam.runtime.options import Verification
from specbeam.runtime.search.nodes import EvaluatedNodes
from specbeam.runtime.search.noise import Noise, prefix_hashes
from specbeam.runtime.search.relaxed import RelaxedVerifier
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.search.verify import StrictVerifier, TolerantVerifier, Verifier
from specbeam.runtime.session import beginning
from specbeam.runtime.types import Mode

INFINITE, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"mode": "greedy"}, ["'greedy'", "strict, tolerant, relaxed, sampled"]),
        ({"mode": "Strict"}, ["'Strict'"]),
        ({"mode": ""}, ["''"]),
        ({"scoring": "half"}, ["'half'", "full, constrained"]),
        ({"mode": "sampled", "scoring": "full"}, ["sampled", "full", "choose constrained"]),
        ({"mode": "tolerant"}, ["needs a slack", "nats"]),
        ({"mode": "tolerant", "scoring": "constrained"}, ["needs a slack"]),
        ({"mode": "tolerant", "slack": -0.1}, ["-0.1", "0 or more"]),
        ({"mode": "tolerant", "slack": INFINITE}, ["inf", "0 or more"]),
        ({"mode": "tolerant", "slack": NAN}, ["nan", "0 or more"]),
        ({"slack": 0.1}, ["0.1", "for tolerant", "got strict", "Leave it out"]),
        ({"slack": 0.0}, ["for tolerant", "got strict"]),
        ({"mode": "relaxed", "slack": 0.5}, ["0.5", "got relaxed"]),
        ({"mode": "sampled", "slack": 0.5}, ["0.5", "got sampled"]),
        ({"temperature": 0.7}, ["temperature of 0.7", "relaxed and sampled", "got strict", "Leave it out"]),
        ({"temperature": 1.0}, ["temperature of 1", "got strict"]),
        ({"mode": "tolerant", "slack": 0.1, "temperature": 2.0}, ["temperature of 2", "got tolerant"]),
        ({"seed": 0}, ["seed of 0", "relaxed and sampled", "got strict"]),
        ({"mode": "tolerant", "slack": 0.1, "seed": 3}, ["seed of 3", "got tolerant"]),
        ({"mode": "sampled", "temperature": 0.0}, ["temperature of 0", "more than 0", "use strict"]),
        ({"mode": "relaxed", "temperature": -1.0}, ["temperature of -1", "more than 0"]),
        ({"mode": "sampled", "temperature": INFINITE}, ["inf", "more than 0"]),
        ({"mode": "relaxed", "temperature": NAN}, ["nan", "more than 0"]),
    ],
)
def test_what_is_refused_and_why(options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        Verification(**options)
    assert isinstance(caught.value, SpecBeamError)
    for part in parts:
        assert part in str(caught.value)
    assert str(caught.value).endswith(".") or str(caught.value).endswith(").")


@pytest.mark.parametrize("scoring", [None, "full", "constrained"])
def test_every_mode_with_its_own_options(scoring: Any) -> None:
    assert Verification(scoring=scoring).lossless
    assert not Verification("tolerant", scoring, slack=0.2).lossless
    assert Verification("tolerant", scoring, slack=0.0).lossless
    for temperature, seed in product((None, 1e-3, 1.0, 50.0), (None, 0, -1, 2**70)):
        assert not Verification("relaxed", scoring, temperature=temperature, seed=seed).lossless
        if scoring != "full":
            assert Verification("sampled", scoring, temperature=temperature, seed=seed).lossless


def test_the_default_is_strict_and_nothing_changes_afterwards() -> None:
    assert Verification() == Verification("strict", None, None, None, None)
    with pytest.raises(FrozenInstanceError):
        Verification().mode = "sampled"  # type: ignore[misc]


def test_a_verifier_takes_no_tree_of_another_mode() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 20, 2, 4))
    view = TrieView(trie)
    noise = Noise(0, np.zeros(1, np.uint64), prefix_hashes(trie))
    verifiers: list[Verifier] = [
        StrictVerifier("strict", view), StrictVerifier("sampled", view), TolerantVerifier(view, 0.1),
        RelaxedVerifier(view, noise, 1.0),
    ]  # fmt: skip
    assert {verifier.mode for verifier in verifiers} == set(get_args(Mode))
    frontier, known = beginning(np.array([2]), np.zeros(1)), EvaluatedNodes(view, Scoring())
    for verifier, mode in product(verifiers, get_args(Mode)):
        if verifier.mode == mode:
            assert verifier.verify(frontier, known, empty_tree(mode)).missing.node.tolist() == [0]
        else:
            with pytest.raises(ValueError, match=f"for {mode} verification, expected one for {verifier.mode}"):
                verifier.verify(frontier, known, empty_tree(mode))
