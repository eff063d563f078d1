"""A planner for a later catalog of the same engines: what was learned is believed, where the depths are the same."""

import numpy as np
import pytest

from kept_cases import learn, planner
from planning_cases import catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.planning.policy import FixedPlanning


def test_what_was_learned_is_believed_of_a_catalog_of_the_same_depths() -> None:
    before = planner()
    learn(before, 50)
    later = before.for_trie(catalog(before.acceptance.length, first=7, items=300))
    assert later.learned().counts == before.learned().counts
    assert later.learned().paces == before.learned().paces
    learn(later, 30)
    assert later.acceptance.requests(10) == before.acceptance.requests(10) + 30  # and the one before stays as it is


def test_of_other_depths_nothing_is_believed() -> None:
    before = planner()
    learn(before, 50)
    shorter = catalog(before.acceptance.length - 1)
    later = before.for_trie(shorter)
    assert later.learned().counts == {}
    assert not later.tuned
    assert later.acceptance.length == shorter.length


@pytest.mark.parametrize("scoring", ["full", "constrained"])
def test_nodes_are_the_later_catalogs(scoring: str) -> None:
    before, trie = planner(), ItemTrie.build(np.array([[1, 2, 3, 4], [1, 2, 3, 5]]))
    before.acceptance.scoring = scoring  # type: ignore[assignment]
    needing = before.for_trie(trie).acceptance._choices.below(np.arange(len(trie.parent)))
    assert needing.sum() == (3 if scoring == "full" else 1)


def test_by_hand_it_is_the_same() -> None:
    fixed = FixedPlanning(None)
    assert fixed.for_trie(catalog()) is fixed
