"""A recommendation explained: the facts taken from the rounds, and the pictures drawn of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain_cases import ANSWER, FIRST, SECOND, explanation, frontier, nodes, step, texts, tree
from scripted_search import ragged_catalog, random_catalog, search
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.evaluate.explain import NEEDED, ExplainedNode, Explanation, explained
from specbeam.evaluate.tree_picture import STYLES, chart, save
from specbeam.runtime.options import Verification
from specbeam.runtime.types import (
    DraftShape,
    Recommendation,
    RecommendedItem,
    RequestStats,
    Round,
    Verdict,
)


def by_node(facts: Explanation) -> dict[int, ExplainedNode]:
    return {node.node: node for node in facts.nodes}


def test_what_became_of_every_node() -> None:
    got = {node.node: node.status for node in explanation(FIRST, SECOND).nodes}
    assert got == {
        0: "prompt", 1: "accepted", 2: "missed", 3: "vain", 4: "accepted", 6: "accepted", 7: "vain",
        8: "item", 10: "item",
    }  # fmt: skip


def test_what_both_sides_thought_of_a_node() -> None:
    found = by_node(explanation(FIRST, SECOND))
    assert found[1] == ExplainedNode(1, 0, 1, "a1", "accepted", 1, 1, -0.5, -0.25, 1)
    assert found[2] == ExplainedNode(2, 0, 1, "a2", "missed", 2, None, None, -1.0, 2)
    assert found[3] == ExplainedNode(3, 0, 1, "a3", "vain", None, 2, -1.5, -4.0, 1)
    assert found[4] == ExplainedNode(4, 1, 2, "b1", "accepted", 1, 1, -0.75, -0.5, 1)  # drafted again in vain
    assert found[6] == ExplainedNode(6, 2, 2, "b1", "accepted", 2, 2, -1.25, -1.5, 2)
    assert found[10] == ExplainedNode(10, 6, 3, "c1", "item", 3, None, None, -1.75, None)


def test_the_nodes_stand_in_the_order_of_the_drawing() -> None:
    assert [node.node for node in explanation(FIRST, SECOND).nodes] == [0, 1, 2, 3, 4, 6, 7, 8, 10]
    upside_down = Recommendation(ANSWER.items[::-1], ANSWER.stats, 0, False)
    assert [node.node for node in explanation(FIRST, SECOND, answer=upside_down).nodes] == [0, 2, 1, 3, 6, 4, 7, 10, 8]


def test_the_headline_and_what_it_rests_on() -> None:
    facts = explanation(FIRST, SECOND)
    assert facts.headline == (
        "2 target calls instead of 3: 3 of 4 needed nodes had been drafted, 1 missed, 2 drafted in vain"
    )
    assert [(c.drafted, c.evaluated, c.depth, c.missing) for c in facts.calls] == [(4, 4, 1, 1), (1, 2, 3, 0)]
    assert facts.history == (("D", "Date"), ("B", None))
    assert facts.unknown_items == 1
    assert facts.leaves == (8, 8, 10)
    assert facts.draft_calls == 3


def test_a_node_that_stands_in_for_a_better_one() -> None:
    steps = (step(1, [1, 2], [True, True], stand_in=2),)
    tolerant = replace(FIRST, verdict=replace(FIRST.verdict, steps=steps))
    facts = explanation(tolerant, SECOND)
    assert by_node(facts)[2].status == "stand-in"
    assert "all 4 needed nodes had been drafted" in facts.headline


def test_a_node_that_leaves_no_choice() -> None:
    steps = (step(2, [4, 6], [False, False], needed=False),)
    facts = explanation(FIRST, replace(SECOND, verdict=replace(SECOND.verdict, steps=steps)))
    assert {by_node(facts)[node].status for node in (4, 6)} == {"single"}
    assert facts.plain_calls == 2  # for the prompt and for depth 1
    assert facts.headline.startswith("2 target calls as without drafting: 1 of 2 needed nodes")


# All continuations of the prompt, then those that the beam waits for: nothing is drafted.
EVERY = Round(
    frontier(0, {0: 0.0}),
    tree((1, 1, 0, 0.0), (2, 1, 1, 0.0), (3, 1, 2, 0.0)),
    np.array([-0.25, -1.0, -4.0]),
    nodes(0, 1, 2, 3),
    Verdict(
        frontier(2, {4: -0.5, 6: -1.5}), nodes(4, 6), (step(1, [1, 2], [True, True]), step(2, [4, 6], [False, False]))
    ),
    np.array([True]),
)


WAITED = Round(
    EVERY.verdict.frontier, tree(), np.empty(0), nodes(4, 6),
    Verdict(frontier(3, {}, {8: -0.625, 10: -1.75}), nodes(), ()), np.array([False]),
)  # fmt: skip


def test_every_continuation_instead_of_a_draft(tmp_path: Path) -> None:
    facts = explanation(EVERY, WAITED)
    assert [call.enumerated for call in facts.calls] == [True, False]
    assert {node.node: node.status for node in facts.nodes if 0 < node.depth < 3} == {
        1: "ahead", 2: "ahead", 3: "vain", 4: "needed", 6: "needed",
    }  # fmt: skip
    assert by_node(facts)[1].draft_score is None
    assert by_node(facts)[1].draft_rank is None
    assert facts.headline == (
        "2 target calls instead of 3: 2 of 4 needed nodes were evaluated ahead (every continuation of a depth), "
        "1 in vain; nothing was drafted"
    )
    save(chart(facts), tmp_path / "tree.svg")
    said = texts(tmp_path / "tree.svg")
    assert not any("missed" in text or "missing" in text for text in said)
    about = [text for text in said if "drafted" in text or "target calls" in text]
    assert " ".join(about) == facts.headline  # in two lines
    assert len(about) == 2
    assert {"2 of 2 ahead", "2 needed", STYLES["ahead"].label, STYLES["needed"].label} <= set(said)
    assert "3 nodes, with every continuation (2 ahead of need, 1 in vain), then 2 needed at depth 2" in said


def test_a_draft_misses_only_at_the_depths_it_reached() -> None:
    short = replace(FIRST, tree=tree((1, 1, 0, -0.5), (3, 1, 1, -1.5)), target_score=np.array([-0.25, -4.0]))
    after = replace(EVERY, tree=tree(), target_score=np.empty(0), evaluated=nodes(2), enumerated=np.array([False]))
    beyond = replace(after.verdict, steps=after.verdict.steps[1:])
    facts = explanation(replace(short, evaluated=nodes(0, 1, 3)), replace(after, verdict=beyond), WAITED)
    assert {node: facts.status for node, facts in by_node(facts).items() if 0 < facts.depth < 3} == {
        1: "accepted", 2: "missed", 3: "vain", 4: "needed", 6: "needed",
    }  # fmt: skip
    assert facts.headline == (
        "3 target calls as without drafting: 1 of 4 needed nodes had been drafted, 1 missed, 2 not drafted for, "
        "1 drafted in vain"
    )


def test_every_continuation_in_one_round_and_a_draft_in_another() -> None:
    tail = replace(SECOND, tree=tree((4, 1, 0, -0.5), (6, 1, 1, -1.25)), before=frontier(1, {1: -0.25, 2: -1.0}))
    first = replace(EVERY, verdict=replace(FIRST.verdict, steps=EVERY.verdict.steps[:1]))
    facts = explanation(first, replace(tail, evaluated=nodes(4, 6)))
    assert facts.headline == (
        "2 target calls instead of 3: 2 of 4 needed nodes had been drafted, 2 evaluated ahead (every continuation of "
        "a depth), 1 evaluated in vain"
    )
    assert facts.drafted == 2


def test_without_a_draft(tmp_path: Path) -> None:
    beams: list[tuple[tuple[int, ...], dict[int, float]]] = [((0,), {1: -0.25, 2: -1.0}), ((1, 2), {4: -0.5, 6: -1.5})]
    before, rounds = frontier(0, {0: 0.0}), []
    for depth, (evaluated, beam) in enumerate(beams, 1):
        moved = Verdict(frontier(depth, beam), nodes(*beam), (step(depth, list(beam), [False, False]),))
        rounds.append(Round(before, tree(), np.empty(0), nodes(*evaluated), moved, np.array([False])))
        before = moved.frontier
    done = Verdict(frontier(3, {}, {8: -0.625, 10: -1.75}), nodes(), ())
    facts = explanation(*rounds, Round(before, tree(), np.empty(0), nodes(4, 6), done, np.array([False])))
    assert facts.headline == "3 target calls: nothing was drafted, so the 4 needed nodes took a call at every depth"
    assert {node.status for node in facts.nodes} == {"prompt", "needed", "item"}
    assert by_node(facts)[6].target_score == -1.5
    assert len(chart(facts).vconcat) == 2  # no scores to compare
    save(chart(facts), tmp_path / "tree.svg")
    said = texts(tmp_path / "tree.svg")
    assert STYLES["needed"].label in said
    assert not any("missed" in text or "missing" in text or "in vain" in text for text in said)
    assert "2 nodes (2 needed), then the search is done" in said


def test_identifiers_with_an_end_token_and_of_text() -> None:
    ended = ItemTrie.build(np.array([[1, 2, 5], [1, 5, -1]]))  # 1 p; 2 p q, 3 p end; 4 p q end
    drafted = tree((1, 1, 0, -0.5), (2, 2, 0, -0.75))
    path = replace(FIRST, tree=drafted, target_score=-np.ones(2), evaluated=nodes(0, 1, 2))
    items = tuple(RecommendedItem(item, None, -1.0, ()) for item in "xy")
    answer = Recommendation(items, ANSWER.stats, 0, False)
    spelled = Catalog(("x", "y"), (("p", "q"), ("p",)), (None, None))
    drawn = explained([path], answer, [], spelled, ended).nodes
    assert [(node.node, node.token) for node in drawn] == [(0, "prompt"), (1, "p"), (2, "q"), (3, "end"), (4, "end")]
    texts = Catalog(("x", "y"), (("peach",), ("plum juice",)), (None, None))
    of_text = ItemTrie.build(np.array([[1, 2, 5], [1, 2, 4]]))
    drawn = explained([path], answer, [], texts, of_text).nodes
    assert [node.token for node in drawn] == ["prompt", "#1", "#2", "#5", "#4"]


@pytest.mark.parametrize("mode", ["strict", "sampled", "relaxed"])
@pytest.mark.parametrize("ragged", [False, True])
@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_search_as_it_happened(mode: str, ragged: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    identifiers = ragged_catalog(rng, 25, 3, 4) if ragged else random_catalog(rng, 25, 3, 5)
    trie = ItemTrie.build(identifiers)
    names = tuple(map(str, range(25)))
    catalog = Catalog(names, tuple(tuple(str(t) for t in row if t > 5) for row in identifiers), (None,) * 25)
    engines = [ScriptedEngine(len(trie.vocabulary), seed=seed, disagreement=d, sharpness=1.5) for d in (0.0, 0.4)]
    rounds: list[Round] = []
    found, evaluator, stats = search(
        trie, engines[0], [rng.integers(0, 9, 6)], 5, draft=engines[1], shape=DraftShape(6, 2),
        verification=Verification(mode), rounds=rounds,
    )  # fmt: skip
    items = [(int(trie.items_of(np.array([leaf]))[1][0]), score) for leaf, score in found[0]]
    ranked = tuple(RecommendedItem(names[item], None, score, catalog.identifiers[item]) for item, score in items)
    facts = explained(rounds, Recommendation(ranked, RequestStats(0, 0, 0), 0, False), [], catalog, trie)
    assert facts.leaves == tuple(leaf for leaf, _ in found[0])
    assert len(facts.calls) == evaluator.calls[0]
    assert sum(call.evaluated for call in facts.calls) == evaluator.evaluated[0]
    assert facts.count("missed", "needed") == stats.rejections
    assert facts.count(*NEEDED) == stats.needed.sum()
    assert not facts.count("ahead")
    place = {node.node: i for i, node in enumerate(facts.nodes)}
    assert len(place) == len(facts.nodes)
    parents = [place[node.parent] for node in facts.nodes[1:]]
    depths = [node.depth for node in facts.nodes]
    assert sorted(zip(depths[1:], parents, strict=True)) == list(zip(depths[1:], parents, strict=True))
    for node in facts.nodes:
        assert node.call is not None or node.status in ("item", "single")
