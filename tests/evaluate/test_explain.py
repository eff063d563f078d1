"""A recommendation explained: the facts taken from the rounds, and the pictures drawn of them."""

import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import run as start
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from commands import bad, good, only
from scripted_recommender import make
from scripted_search import ragged_catalog, random_catalog, search
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.extras import install
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.evaluate.explain import NEEDED, ExplainedNode, Explanation, explain, explained, rows
from specbeam.evaluate.tree_listing import TITLE, listing, pixels, told_apart
from specbeam.evaluate.tree_picture import STYLES, TOP, chart, save
from specbeam.runtime import EngineChoice, Recommender
from specbeam.runtime.options import Verification
from specbeam.runtime.types import (
    DraftShape,
    DraftTree,
    Frontier,
    Hypotheses,
    NodeList,
    Recommendation,
    RecommendedItem,
    RequestStats,
    Round,
    Step,
    Verdict,
)
from tiny_bundle import Tiny

# Its trie: 1 a1, 2 a2, 3 a3; 4 a1 b1, 5 a1 b2, 6 a2 b1, 7 a3 b1; and below each of these one leaf, 8 to 11.
CATALOG = Catalog(
    ("A", "B", "C", "D", "E"),
    (("a1", "b1", "c1"), ("a1", "b2", "c1"), ("a2", "b1", "c1"), ("a3", "b1", "c1"), ("a1", "b1", "c1")),
    ("Apple & pear", None, "Cherry <red>", "Date", "Elder &amp; fig"),
)
TRIE = ItemTrie.build(np.array([[1, 11, 21], [1, 12, 21], [2, 11, 21], [3, 11, 21], [1, 11, 21]]))


def nodes(*of: int) -> NodeList:
    return NodeList(np.zeros(len(of), np.int64), np.array(of, np.int64))


def hypotheses(held: dict[int, float]) -> Hypotheses:
    """Up to two nodes with their scores, best first."""
    row = np.array([[*held, -1, -1][:2]], np.int64)
    scores = np.array([[*held.values(), -np.inf, -np.inf][:2]], np.float64)
    return Hypotheses(row, scores, scores)


def frontier(depth: int, running: dict[int, float], finished: dict[int, float] | None = None) -> Frontier:
    return Frontier(hypotheses(running), hypotheses(finished or {}), np.array([depth]), np.array([2]))


def tree(*drafted: tuple[int, int, int, float]) -> DraftTree:
    """Of (node, level, rank, score)."""
    node, level, rank, score = (np.array(column) for column in zip(*drafted, strict=True)) if drafted else [[]] * 4
    numbers = (np.array(column, np.int64) for column in (level, rank))
    return DraftTree(nodes(*node), *numbers, np.array(score, np.float64), "strict")


def step(depth: int, beam: Sequence[int], found: Sequence[bool], *, needed: bool = True, stand_in: int = -1) -> Step:
    there = np.array([beam])
    return Step(
        np.array([True]), np.array([depth]), there, np.array([[needed] * 2]), np.array([found]) & needed,
        there == stand_in,
    )  # fmt: skip


# The beams are {a1, a2}, {a1 b1, a2 b1} and the leaves below; the draft thinks a3 better than a2.
FIRST = Round(
    frontier(0, {0: 0.0}),
    tree((1, 1, 0, -0.5), (3, 1, 1, -1.5), (4, 2, 0, -0.75), (7, 2, 1, -1.75)),
    np.array([-0.25, -4.0, -0.5, -4.5]),
    nodes(0, 1, 3, 4, 7),
    Verdict(frontier(1, {1: -0.25, 2: -1.0}), nodes(2), (step(1, [1, 2], [True, False]),)),
    np.array([False]),
)
SECOND = Round(
    FIRST.verdict.frontier,
    tree((4, 1, 0, -0.5), (6, 1, 1, -1.25)),
    np.array([-0.5, -1.5]),
    nodes(2, 6),
    Verdict(
        frontier(3, {}, {8: -0.625, 10: -1.75}),
        nodes(),
        (step(2, [4, 6], [True, True]), replace(step(3, [-1, -1], [False, False]), moved=np.array([False]))),
    ),
    np.array([False]),
)
ANSWER = Recommendation(
    (
        RecommendedItem("A", "Apple & pear", -0.625, CATALOG.identifiers[0]),
        RecommendedItem("E", "Elder &amp; fig", -0.625, CATALOG.identifiers[4]),
        RecommendedItem("C", "Cherry <red>", -1.75, CATALOG.identifiers[2]),
    ),
    RequestStats(2, 3, 6), 1, False,
)  # fmt: skip
HISTORY = ["D", "nobody's", "B"]


def explanation(*rounds: Round, answer: Recommendation = ANSWER) -> Explanation:
    return explained(rounds, answer, HISTORY, CATALOG, TRIE)


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


@st.composite
def trees(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parents, depths and heights, by depth and then by parent."""
    levels, parent, depth = [[0]], [-1], [0]
    for level in range(1, draw(st.integers(1, 4))):
        above = sorted(draw(st.lists(st.sampled_from(levels[-1]), min_size=1, max_size=12)))
        levels.append(list(range(len(parent), len(parent) + len(above))))
        parent += above
        depth += [level] * len(above)
    heights = draw(st.lists(st.floats(1, 40), min_size=len(parent), max_size=len(parent)))
    return np.array(parent), np.array(depth), np.array(heights)


@given(trees())
def test_no_two_nodes_of_a_depth_touch(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    parent, depth, height = drawn
    y = rows(parent, depth, height)
    for level in (np.flatnonzero(depth == d) for d in range(depth.max() + 1)):
        assert (np.diff(y[level]) >= (height[level][1:] + height[level][:-1]) / 2 - 1e-9).all()
    assert (y - height / 2 >= -1e-9).all()
    for node in range(len(parent)):
        below = y[parent == node]
        assert not len(below) or below[0] - 1e-9 <= y[node] <= below[-1] + 40


def texts(svg: Path) -> list[str]:
    """What an SVG says; it must be well-formed."""
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [text for element in root.iter() if (text := (element.text or "").strip())]


def test_an_svg_says_what_happened(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    save(chart(facts), tmp_path / "tree.svg")
    said = texts(tmp_path / "tree.svg")
    for text in (
        "A", "Apple & pear", "E", "Elder & fig", "these 2 items have one identifier", "C", facts.headline,
        "Cherry <red>", "1 of 2 drafted", "2 of 2 drafted",
        "target call 2", "2 nodes (1 accepted, 1 missed before), then the search is done", "depth 3",
        "4 nodes (2 accepted, 2 in vain), then 1 missing at depth 1",
    ):  # fmt: skip
        assert text in said
    assert said.count("b1") == 2  # nodes in vain have no label
    assert {STYLES[status].label for status in ("accepted", "missed", "vain", "item")} <= set(said)
    assert STYLES["single"].label not in said


def test_without_titles_there_is_no_column_for_them(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    bare = replace(facts, items=tuple(structs.replace(item, title=None) for item in facts.items))
    alone = replace(bare, items=bare.items[::2], leaves=bare.leaves[::2], sharing=(1, 1))
    widths = [chart(shown).vconcat[1].width for shown in (facts, bare, alone)]
    note = pixels("these 2 items have one identifier")
    assert widths[0] - widths[1] == pytest.approx(TITLE - note, abs=1)
    assert widths[0] - widths[2] == TITLE
    for shown in (bare, alone):
        save(chart(shown), tmp_path / "tree.svg", overwrite=True)
        said = texts(tmp_path / "tree.svg")
        assert {"item", "score", "A", "C"} <= set(said)
        assert "title" not in said
    part = replace(facts, items=(*bare.items[:2], facts.items[2]))  # one has a title
    assert chart(part).vconcat[1].width == widths[0]


def test_titles_are_told_apart() -> None:
    same = "Bundle Monster Nail Art Nailart Polish Stamp Stamping Manicure Image Plates Accessories Set Kit " * 2
    shown = told_apart([same + "25 pieces, blue", same + "25 pieces, red", "short", "", same + "25 pieces, red"])
    assert shown[2:4] == [("short",), ()]
    assert [lines[-1].endswith(colour) for lines, colour in zip(shown[:2], ("blue", "red"), strict=True)] == [
        True,
        True,
    ]
    assert shown[1] == shown[4]  # the same title: ids tell them apart
    assert all(len(lines) <= 2 and pixels(line) <= TITLE + 6 for lines in shown for line in lines)
    wide = told_apart(["爪" * 200])[0]
    assert len(wide) == 2
    assert wide[-1].endswith("…")
    assert all(pixels(line) <= TITLE for line in wide)


def test_shared_identifiers_are_explained(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    assert facts.sharing == (2, 2, 1)
    assert "Items that share an identifier" in facts.introduction[-1]
    listed = listing(replace(facts, sharing=(5, 5, 2)))
    assert [leaf.note for leaf in listed.values()] == [
        "these 2 items have one identifier; 3 more items of the catalog share it",
        "its identifier: 1 more item of the catalog shares it",
    ]
    alone = replace(facts, items=facts.items[::2], leaves=facts.leaves[::2], sharing=(1, 1))
    assert not any(leaf.note for leaf in listing(alone).values())
    assert not any("share" in line for line in alone.introduction)


def test_a_png_has_two_pixels_for_each_of_the_svg_s(tmp_path: Path) -> None:
    picture = chart(explanation(FIRST, SECOND))
    save(picture, tmp_path / "tree.PNG")
    save(picture, tmp_path / "tree.svg")
    content = (tmp_path / "tree.PNG").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    size = struct.unpack(">II", content[16:24])
    svg = ElementTree.parse(tmp_path / "tree.svg").getroot()
    assert size == pytest.approx([2 * float(svg.attrib[name]) for name in ("width", "height")], abs=2)
    assert size[1] > 2 * TOP


def test_an_html_needs_no_network(tmp_path: Path) -> None:
    save(chart(explanation(FIRST, SECOND)), tmp_path / "tree.html")
    content = (tmp_path / "tree.html").read_text("utf-8")
    assert "<script" in content
    assert "src=" not in "".join(part.partition(">")[0] for part in content.split("<script")[1:])
    assert "<link" not in content
    assert "cdn." not in content
    assert "Apple & pear" in content or "Apple \\u0026 pear" in content


def test_other_suffixes_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(SpecBeamError, match=r"got the suffix '.gif'; expected one of .html, .svg, .png"):
        save(chart(explanation(FIRST, SECOND)), tmp_path / "tree.gif")
    with pytest.raises(SpecBeamError, match="got the suffix ''"):
        save(chart(explanation(FIRST, SECOND)), tmp_path / "tree")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["runtime", "evaluate.explain", "cli"])
def test_nothing_else_loads_a_plotting_library(module: str) -> None:
    code = f"import sys, specbeam.{module}; print({{'altair', 'vl_convert'}} & set(sys.modules))"
    assert start([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_the_command_draws_what_infer_would_recommend(tiny: Tiny, tmp_path: Path) -> None:
    outputs = [tmp_path / f"tree.{suffix}" for suffix in ("svg", "html")]
    flags = [part for output in outputs for part in ("-o", output)]
    result = good(
        "explain", tiny.bundle, "--history", "2, 4,unheard-of", *flags, "--top-k", 6, "--draft-width", 4, "--threads", 1
    )
    assert "Left out of the history, because the catalog lacks them: unheard-of" in result.stderr
    assert "target call" in result.stdout
    assert f"Wrote {outputs[0]}, {outputs[1]}" in result.stdout
    said = texts(outputs[0])
    assert result.stdout.splitlines()[0] in said
    assert sum(text.startswith("Title ") or text in tiny.item_ids for text in said) >= 6
    answer = Recommender.open(tiny.bundle, engine=EngineChoice(threads=1)).recommend([["2", "4"]], 6)[0]
    assert {item.item for item in answer.items} <= set(said)
    assert any("(1 item left out: not in the catalog)" in text for text in said)
    assert outputs[1].stat().st_size > 100_000


def test_the_command_refuses_before_it_works(tiny: Tiny, tmp_path: Path) -> None:
    output = tmp_path / "tree.svg"
    assert "got the suffix '.pdf'" in bad("explain", tmp_path, "--history", "1", "-o", tmp_path / "tree.pdf")
    assert "'nobody'" in bad("explain", tiny.bundle, "--history", "nobody", "-o", output)
    only(output)
    output.write_text("mine")
    assert "exists already" in bad("explain", tmp_path, "--history", "1", "-o", output)
    good("explain", tiny.bundle, "--history", "1", "-o", output, "--overwrite", "--speculation", "fixed")
    assert "Top 10 for a history of 1 item: item 1" in texts(output)


def test_the_command_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "specbeam.evaluate.tree_picture", raising=False)
    monkeypatch.setitem(sys.modules, "altair", None)
    message = bad("explain", tmp_path, "--history", "1", "-o", tmp_path / "tree.svg")
    assert f"altair is not installed. Run: {install('explain')}" in message


def test_a_title_can_neither_end_the_page_s_script_nor_stop_the_renderer(tmp_path: Path) -> None:
    facts = explanation(FIRST, SECOND)
    hostile = "</script><script>x()</script><!-- \x00\x07\x1b[31m"
    facts = replace(facts, items=tuple(structs.replace(item, title=hostile) for item in facts.items))
    for suffix in ("html", "svg", "png"):
        save(chart(facts), tmp_path / f"tree.{suffix}")
    content = (tmp_path / "tree.html").read_text("utf-8")
    assert "<script>x" in content  # as a text
    assert "</script><script>x" not in content
    assert any("[31m" in text for text in texts(tmp_path / "tree.svg"))


def test_where_the_target_is_never_asked_there_is_nothing_to_draw() -> None:
    recommender = make(np.array([[11, 12]]), verification=Verification(scoring="constrained"))
    with pytest.raises(SpecBeamError, match="nothing to draw"):
        explain(recommender, ["i0"], 3)
