"""The types that the parts of the loop hand to each other. No logic lives here.

B requests, W beams, n nodes in a flat list. A node of the item trie names a prefix, so (request, trie
node) names a node of a request's search.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..catalog import checks
from ..catalog.trie import ItemTrie
from ..engines.bundle.facts import Scoring

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Mode = Literal["strict", "tolerant", "relaxed", "sampled"]
DrafterKind = Literal["model", "retrieval", "both", "none"]
ScoringKind = Scoring


class Beams(NamedTuple):
    """Scored nodes, flat and grouped by request."""

    request: Int64  # [n] index into the batch, ascending
    node: Int64  # [n] trie nodes
    score: Float64  # [n] summed log-probability of the path
    key: Float64  # [n] what they are ranked by: the score, or where sampling the perturbed score


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Up to W nodes of every request, best first."""

    nodes: Int64  # [B, W] trie nodes; -1 where a request has fewer than W
    scores: Float64  # [B, W] summed log-probabilities; -inf where nodes is -1
    keys: Float64  # [B, W] what they are ranked by; -inf where nodes is -1


@dataclass(frozen=True, eq=False)
class Frontier:
    """Where every request's beam search stands; requests may stand at different depths.

    A request whose `running` is empty is done, and `finished` is its answer.
    """

    running: Hypotheses  # the best prefixes at `depth`
    finished: Hypotheses  # the best leaves so far
    depth: Int64  # [B]
    width: Int64  # [B] K: how many each request may hold of either kind; at most W

    @cached_property
    def active(self) -> Bool:
        """[B] requests that still have something to step."""
        return self.running.nodes[:, 0] >= 0


@dataclass(frozen=True, eq=False)
class NodeList:
    """Nodes of several requests, flat."""

    request: Int64  # [n] index into the batch
    node: Int64  # [n] trie nodes

    def __len__(self) -> int:
        return len(self.request)


@dataclass(frozen=True, eq=False)
class Proposals:
    """What a sampled draft drew from, level by level: the distribution that relaxed verification needs.

    A node's depth is its level, so none occurs twice.
    """

    nodes: NodeList  # [m] everything that could have been drawn
    log_q: Float64  # [m] unnormalised log-probability of each
    drawn: Bool  # [m] what was drawn


@dataclass(frozen=True, eq=False)
class DraftTree:
    """Nodes that the target will probably need, and the verification they were drafted for.

    The parent of every node is a frontier node or another drafted node. Level 1 are the children of the
    frontier; ranks count from 0, the likeliest first.
    """

    nodes: NodeList
    level: Int64  # [n] 1, 2, ...
    rank: Int64  # [n] among the nodes of its request and level
    score: Float64  # [n] as the draft sees it (where the target has scored the path, the target's)
    mode: Mode
    proposals: Proposals | None = None  # of a draft for relaxed verification


@dataclass(frozen=True, eq=False)
class CompiledFilter:
    """The items a request may be recommended, as the search reads it: what requests share, less what is its own.

    What is shared is never copied: a request's own exclusions are lists, not masks of the whole catalog.
    """

    items: Bool | None  # [I] allowed items, by catalog order; None: all
    live: Bool | None  # [M] nodes that lead to one of them; None: all
    count: int  # items it allows
    identifiers: int  # ... that these have
    excluded: Int64 = field(default_factory=lambda: np.empty(0, np.int64))  # not allowed either: items, ascending
    dead: Int64 = field(default_factory=lambda: np.empty(0, np.int64))  # nodes that lead to none but these, ascending
    chosen: Int64 | None = None  # in place of a mask, where few are allowed of many: these items, ascending
    paths: Int64 | None = None  # ... and the nodes that lead to them

    def allows(self, items: NDArray[np.integer]) -> Bool:
        """Whether items (catalog positions [n]) are allowed."""
        allowed = _marked(items, self.items, self.chosen)
        return allowed & ~is_among(items, self.excluded) if len(self.excluded) else allowed

    def leads(self, nodes: NDArray[np.integer]) -> Bool:
        """Whether nodes [n] lead to an allowed item."""
        alive = _marked(nodes, self.live, self.paths)
        return alive & ~is_among(nodes, self.dead) if len(self.dead) else alive


def _marked(numbers: NDArray[np.integer], mask: Bool | None, chosen: Int64 | None) -> Bool:
    if chosen is not None:
        return is_among(numbers, chosen)
    return np.ones(len(numbers), bool) if mask is None else mask[numbers]


def is_among(numbers: NDArray[np.integer], known: Int64) -> Bool:
    """Whether numbers [n] are among known ones, which ascend."""
    if not len(known):
        return np.zeros(len(numbers), bool)
    at = np.minimum(known.searchsorted(numbers), len(known) - 1)
    found: Bool = known[at] == numbers
    return found


@dataclass(frozen=True, eq=False)
class Request:
    """One history as the engines read it, and what its user asked for."""

    prompt: Int64  # [P] token ids
    history: Int64  # [n] its items that the catalog has, by catalog order, oldest first
    user: str | None  # whose it is, where it was said
    unknown_items: int
    shortened: bool
    key: int  # 64 bits of the user's name, for sampling
    k: int | None  # items it asks for; None: as many as all others
    filter: CompiledFilter | None  # None: all items; requests may share one
    excluded: Int64  # [n] items it may not be recommended either, by catalog order
    trie: ItemTrie = field(repr=False)  # for which it was encoded: its tokens and items are that one's
    seed: int | None = None  # of its draws; None: that of all others


@dataclass(frozen=True, eq=False)
class Step:
    """One depth that some requests' frontiers reached in a round."""

    moved: Bool  # [B] the requests that stepped
    depth: Int64  # [B] where every request stands now
    nodes: Int64  # [B, W] the running nodes now
    needed: Bool  # [B, W] of the requests that stepped: the target must score the children of this node
    found: Bool  # [B, W] of the needed: it had done so already
    stand_ins: Bool  # [B, W] stands in for a better node that was not drafted (tolerant verification)


@dataclass(frozen=True, eq=False)
class Verdict:
    """How far the evaluated nodes let the frontier advance, and what was found on the way."""

    frontier: Frontier
    missing: NodeList  # frontier nodes to evaluate before their requests can step; none: all are done
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Round:
    """One round of a batch as it happened, for those who want to look at it."""

    before: Frontier
    tree: DraftTree
    target_score: Float64  # [n] what the target gave every node of the tree; -inf where it never scored the path
    evaluated: NodeList  # what the target's call evaluated, the root (the prompt) included in the first
    verdict: Verdict
    enumerated: Bool  # [B] requests whose part of the tree is all continuations: neither draft nor pool was asked


WIDEST, LONGEST = 10**6, 1000  # of a draft by hand: far beyond what pays, far below what fills the memory


@dataclass(frozen=True)
class DraftShape:
    """How much to draft by hand: `width` nodes at each of `length` depths. Raises `OptionError` for what is neither."""

    width: int = 40
    length: int = 3

    def __post_init__(self) -> None:
        for name, most in (("width", WIDEST), ("length", LONGEST)):
            value = checks.whole_number(getattr(self, name), f"a draft's {name}", 1, most)
            object.__setattr__(self, name, value)


class RequestStats(msgspec.Struct, frozen=True):
    """What one request cost."""

    target_calls: int  # calls of the target in which this request had tokens
    draft_calls: int
    nodes_evaluated: int  # trie nodes the target evaluated for it (the prompt not counted)


class RecommendedItem(msgspec.Struct, frozen=True):
    """One entry of a ranked list."""

    item: str
    title: str | None
    score: float  # summed log-probability of the identifier
    identifier: tuple[str, ...]


class PopularItem(msgspec.Struct, frozen=True):
    """One entry of a list of what is popular: no model has scored it."""

    item: str
    title: str | None
    identifier: tuple[str, ...]


class Recommendation(msgspec.Struct, frozen=True):
    """The ranked items of one request."""

    items: tuple[RecommendedItem, ...]
    stats: RequestStats
    unknown_items: int  # items of the history that the catalog lacks; dropped
    shortened: bool  # the context did not hold the history that the bundle's history length allows
    available: int | None = None  # items that its filter (or the catalog) leaves, where fewer than it asked for


class RequestFailure(msgspec.Struct, frozen=True):
    """What a request gets in place of an answer where the engine's numbers are none."""

    number: int  # of the request among those it was run with
    user: str | None
    engine: str  # its name and precision
    reason: str
