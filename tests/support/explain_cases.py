"""An explanation by hand, and what its pictures hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.evaluate.explain import Explanation, explained
from specbeam.runtime.types import (
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


def texts(svg: Path) -> list[str]:
    """What an SVG says; it must be well-formed."""
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [text for element in root.iter() if (text := (element.text or "").strip())]
