"""One recommendation explained: what was drafted, what the target needed of it, and what that cost; as a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import unescape
from typing import Final, Literal

import numpy as np

from ..catalog import checks
from ..catalog.errors import OptionError
from ..catalog.items import Catalog
from ..catalog.trie import ItemTrie
from ..runtime import Recommendation, RecommendedItem, Recommender
from ..runtime.search.filters import ItemFilter
from ..runtime.types import Float64, Int64, Mode, Round

Status = Literal["prompt", "accepted", "stand-in", "ahead", "missed", "needed", "single", "vain", "item"]
NEEDED: Final[tuple[Status, ...]] = ("accepted", "stand-in", "ahead", "missed", "needed")


@dataclass(frozen=True)
class ExplainedNode:
    """A prefix that the target evaluated, the beam search reached, or the answer holds; scores as natural logarithms.

    status: "prompt" (the root), "accepted" (needed, and drafted before), "stand-in" (accepted in place of a
    better node that had not been drafted), "ahead" (needed, and evaluated before as one of all continuations),
    "missed" (needed, and not among what was drafted at its depth), "needed" (likewise, where nothing was
    drafted), "single" (in the beam, with one continuation only: nothing to evaluate), "vain" (evaluated, never
    needed), "item" (a leaf of the answer).
    """

    node: int  # in the item trie
    parent: int  # likewise; -1 at the prompt
    depth: int
    token: str
    status: Status
    beam_rank: int | None  # in the beam of its depth, from 1; of an item: in the answer
    draft_rank: int | None  # among the nodes drafted with it at its depth, from 1; None: it was not drafted
    draft_score: float | None  # summed log-probability, as the draft saw it
    target_score: float | None  # likewise, the target's
    call: int | None  # of the target, from 1, in which it was evaluated


@dataclass(frozen=True)
class ExplainedCall:
    """One round: the target's call, and how far the beam search got with it."""

    drafted: int  # nodes of the call that were evaluated ahead of need
    enumerated: bool  # these are all continuations of the beam: the draft was not asked
    evaluated: int  # nodes of the call, the prompt not counted
    depth: int  # where the beam search stands then
    missing: int  # nodes it has to wait for


@dataclass(frozen=True)
class Explanation:
    """How one list came about. Nodes stand by depth, below one depth by parent, and siblings best first."""

    history: tuple[tuple[str, str | None], ...]  # item id and title, oldest first; items the catalog lacks left out
    items: tuple[RecommendedItem, ...]
    leaves: tuple[int, ...]  # the node of every item
    nodes: tuple[ExplainedNode, ...]
    calls: tuple[ExplainedCall, ...]
    draft_calls: int
    unknown_items: int  # of the history
    length: int  # tokens of the longest identifier
    mode: Mode
    sharing: tuple[int, ...]  # of every item: how many of the catalog have its identifier, itself among them

    def count(self, *statuses: Status, depth: int | None = None) -> int:
        """Nodes of these statuses, at one depth or at all."""
        return sum(node.status in statuses and depth in (None, node.depth) for node in self.nodes)

    @property
    def drafted(self) -> int:
        """Nodes that a draft or a pool proposed."""
        return sum(call.drafted for call in self.calls if not call.enumerated)

    @property
    def ranked_by_score(self) -> bool:
        """Whether the beams hold exactly what the target scores highest."""
        return self.mode == "strict"

    @property
    def plain_calls(self) -> int:
        """Calls without drafting: one for the prompt, and one for every depth at which nodes are needed."""
        return 1 + sum(self.count(*NEEDED, depth=d) > 0 for d in range(1, self.length))

    @property
    def headline(self) -> str:
        """What evaluating ahead of need was worth, in a line."""
        calls, total = counted(len(self.calls), "target call"), self.count(*NEEDED)
        needed, vain = counted(total, "needed node"), self.count("vain")
        enumerated = any(call.enumerated for call in self.calls)
        if not self.drafted and not enumerated:
            return f"{calls}: nothing was drafted" + (f", so the {needed} took a call at every depth" if total else "")
        saved = f"instead of {self.plain_calls}" if len(self.calls) < self.plain_calls else "as without drafting"
        found, ahead = self.count("accepted", "stand-in"), self.count("ahead")
        every = "evaluated ahead (every continuation of a depth)"
        if not self.drafted:
            return f"{calls} {saved}: {ahead} of {needed} were {every}, {vain} in vain; nothing was drafted"
        parts = [f"{'all' if found == total else f'{found} of'} {needed} had been drafted"]
        others = ((ahead, every), (self.count("missed"), "missed"), (self.count("needed"), "not drafted for"))
        parts += [f"{number} {what}" for number, what in others if number]
        return f"{calls} {saved}: {', '.join(parts)}, {vain} {'evaluated' if enumerated else 'drafted'} in vain"

    @property
    def introduction(self) -> list[str]:
        """For whom the list is, and what the headline speaks of: lines of text."""
        titles = [shortened(named(item, title), 44) for item, title in self.history]
        shown = " · ".join(["…"] * (len(titles) > 3) + titles[-3:])
        lines = [f"Top {len(self.items)} for a history of {counted(len(titles), 'item')}: {shown}"]
        if self.unknown_items:
            lines[0] += f" ({counted(self.unknown_items, 'item')} left out: not in the catalog)"
        lines.append(
            "A node is the beginning of an identifier. It is needed where the target's beam search goes on from it."
        )
        if self.drafted:
            guessed = f"in {counted(self.draft_calls, 'draft call')}" if self.draft_calls else "from the pool"
            lines[1] += f" {counted(self.drafted, 'node')} drafted {guessed}."
        if max(self.sharing, default=1) > 1:
            lines.append(
                "Items that share an identifier share a leaf and a score; they are listed in the catalog's order."
            )
        return lines


def explain(
    recommender: Recommender,
    history: Iterable[str | int],
    k: int = 10,
    *,
    user: str | int | None = None,
    item_filter: ItemFilter | None = None,
    exclude_history: bool = False,
) -> Explanation:
    """Recommend k items for one history (item ids, oldest first) and tell how the list came about.

    user, item_filter and exclude_history are those of `Recommender.encode`. Raises `HistoryError` as it does, and
    `OptionError` where there is nothing to draw.
    """
    checks.instance(recommender, "recommender", Recommender, "such as Recommender.open(bundle)")
    items = checks.history(history)
    request = recommender.encode(items, user=user, item_filter=item_filter, exclude_history=exclude_history)
    answer, rounds = recommender.trace(request, k)
    if not rounds:
        raise OptionError(
            "There is nothing to draw: the catalog leaves no choice under this scoring, so the target was never asked. "
            "Use --scoring full."
        )
    return explained(rounds, answer, items, recommender.catalog, recommender.trie)


def explained(
    rounds: Sequence[Round], answer: Recommendation, history: Sequence[str], catalog: Catalog, trie: ItemTrie
) -> Explanation:
    """The rounds of a batch of one request, and the answer they led to, put together."""
    search = _Search()
    calls = tuple(search.add(number, each) for number, each in enumerate(rounds, 1))
    leaves = tuple(int(trie.leaf_of[catalog.position[best.item]]) for best in answer.items)
    for rank, (leaf, best) in enumerate(zip(leaves, answer.items, strict=True), 1):
        search.beam_rank.setdefault(leaf, rank)
        search.target_score[leaf] = best.score
    nodes = _drawing_order(np.array(sorted({0, *search.beam_rank, *search.call})), leaves, trie, search)
    statuses = [search.status(node, leaves) for node in nodes.tolist()]
    return Explanation(
        tuple((item, catalog.titles[catalog.position[item]]) for item in history if item in catalog.position),
        answer.items,
        leaves,
        tuple(map(search.node, nodes.tolist(), statuses, trie.parent[nodes].tolist(), trie.depth[nodes].tolist(),
                  _tokens(nodes, trie, catalog))),
        calls, answer.stats.draft_calls, answer.unknown_items, trie.length, rounds[0].tree.mode,
        tuple((trie.item_offset[1:] - trie.item_offset[:-1])[list(leaves)].tolist()),
    )  # fmt: skip


@dataclass
class _Search:
    """What the rounds tell of every trie node; the first call that evaluates it and the first draft of it count."""

    call: dict[int, int] = field(default_factory=dict)
    draft: dict[int, tuple[int, float]] = field(default_factory=dict)  # rank and score
    target_score: dict[int, float] = field(default_factory=dict)
    beam_rank: dict[int, int] = field(default_factory=dict)
    found: dict[int, bool] = field(default_factory=dict)  # of needed nodes: evaluated by then
    stand_ins: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)
    enumerated: set[int] = field(default_factory=set)

    def add(self, number: int, each: Round) -> ExplainedCall:
        """Take one round in."""
        tree, after = each.tree, each.verdict.frontier
        new = each.evaluated.node[~np.isin(each.evaluated.node, list(self.call))]
        ahead = new[np.isin(new, tree.nodes.node)].tolist()
        enumerated = bool(each.enumerated[0]) and len(tree.nodes) > 0
        proposed = set() if enumerated else set((each.before.depth[0] + tree.level).tolist())  # depths
        if enumerated:
            self.enumerated.update(ahead)
        else:
            ranks = zip(tree.nodes.node.tolist(), (tree.rank + 1).tolist(), tree.score.tolist(), strict=True)
            self.draft = {node: (rank, score) for node, rank, score in ranks} | self.draft
        self.call |= dict.fromkeys(new.tolist(), number)
        self._score(tree.nodes.node, each.target_score)
        for held in (each.before.running, after.running, after.finished):
            self._score(held.nodes[0], held.scores[0])
        for step in each.verdict.steps:
            there = (step.nodes[0] >= 0) & step.moved[0]
            nodes = step.nodes[0][there]
            self.beam_rank |= zip(nodes.tolist(), range(1, 1 + len(nodes)), strict=True)
            needed = step.needed[0][there]
            self.found |= zip(nodes[needed].tolist(), step.found[0][there][needed].tolist(), strict=True)
            self.stand_ins.update(nodes[step.stand_ins[0][there]].tolist())
            if int(step.depth[0]) in proposed:
                self.missed.update(nodes[needed & ~step.found[0][there]].tolist())
        evaluated, depth = int((new > 0).sum()), int(after.depth[0])
        return ExplainedCall(len(ahead), enumerated, evaluated, depth, len(each.verdict.missing))

    def _score(self, nodes: Int64, scores: Float64) -> None:
        known = np.isfinite(scores) & (nodes >= 0)
        self.target_score |= zip(nodes[known].tolist(), scores[known].tolist(), strict=True)

    def status(self, node: int, leaves: Iterable[int]) -> Status:
        if node == 0 or node in leaves:
            return "item" if node else "prompt"
        if node not in self.beam_rank:
            return "vain"
        if node not in self.found:
            return "single"
        if not self.found[node]:
            return "missed" if node in self.missed else "needed"
        if node in self.stand_ins:
            return "stand-in"
        return "ahead" if node in self.enumerated else "accepted"

    def node(self, node: int, status: Status, parent: int, depth: int, token: str) -> ExplainedNode:
        rank, score = self.draft.get(node, (None, None))
        return ExplainedNode(
            node, parent, depth, token, status, self.beam_rank.get(node), rank, score, self.target_score.get(node),
            self.call.get(node),
        )  # fmt: skip


def _drawing_order(nodes: Int64, leaves: Sequence[int], trie: ItemTrie, search: _Search) -> Int64:
    """Nodes [n], ascending, by depth, then in the order of their parents.

    Siblings by the best item below them, then by their rank in the beam, then in the draft.
    """
    last = len(nodes)
    best: dict[int, int] = {}
    for rank, leaf in enumerate(leaves):
        while leaf >= 0:
            best.setdefault(leaf, rank)
            leaf = int(trie.parent[leaf])
    place = np.zeros(len(trie.parent), np.int64)  # of every node in its level's order
    levels = [nodes[:1]]
    for depth in range(1, trie.length + 1):
        level = nodes[trie.depth[nodes] == depth]
        draft = [search.draft.get(node, (last, 0.0))[0] for node in level.tolist()]
        beam, item = ([ranks.get(node, last) for node in level.tolist()] for ranks in (search.beam_rank, best))
        level = level[np.lexsort((draft, beam, item, place[trie.parent[level]]))]
        place[level] = np.arange(len(level))
        levels.append(level)
    return np.concatenate(levels)


def _tokens(nodes: Int64, trie: ItemTrie, catalog: Catalog) -> list[str]:
    """The last token of every node [n], as the catalog writes it; its id where the catalog has only whole texts."""
    below = nodes.copy()
    while (inner := trie.child_count[below] > 0).any():
        below = np.where(inner, trie.first_child[below], below)
    names = []
    for node, leaf in zip(nodes.tolist(), below.tolist(), strict=True):
        identifier = catalog.identifiers[trie.item[trie.item_offset[leaf]]]
        spelled = ("prompt", *identifier, "end")  # where identifiers differ in length, a token may end them
        fits = trie.depth[leaf] in (len(identifier), len(identifier) + 1)
        names.append(spelled[trie.depth[node]] if fits or not node else f"#{int(trie.tokens(nodes[:1] * 0 + node)[0])}")
    return names


def rows(parent: Int64, depth: Int64, height: Float64) -> Float64:
    """Where a tree's nodes [n] stand across the depths: each in the middle of a stripe that holds all below it.

    parent: places in the list of nodes, -1 for the root; nodes stand by depth and then by parent. height:
    what each takes by itself. The stripes of one depth never overlap.
    """
    levels = [np.flatnonzero(depth == d) for d in range(1, int(depth.max()) + 1)]
    below, extent = np.zeros(len(parent)), height.astype(np.float64)
    for level in reversed(levels):
        below += np.bincount(parent[level], extent[level], len(parent))
        extent = np.maximum(extent, below)
    top = np.zeros(len(parent))
    for level in levels:
        above = parent[level]
        before = np.cumsum(extent[level]) - extent[level]  # in the whole level
        first = np.searchsorted(above, above)  # each node's first sibling
        top[level] = top[above] + (extent - below)[above] / 2 + before - before[first]
    return top + extent / 2


def counted(number: int, what: str) -> str:
    """A number and its noun."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def named(item: str, title: str | None) -> str:
    """An item's id, and its title if it has one."""
    return f"{item} {plain_text(title)}" if title else f"item {item}"


def plain_text(title: str | None) -> str:
    """A title without the marks of web pages, which many are written for."""
    return unescape(title or "")


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` letters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
