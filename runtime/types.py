"""The types that the parts of the loop hand to each other. No logic lives here.

B requests, W beams, n nodes in a flat list. A node of the item trie names a prefix, so (request, trie
node) names a node of a request's search.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Frontier:
    """The K best prefixes so far of every request, best first; requests may stand at different depths."""

    nodes: Int64  # [B, W] trie nodes; -1 where a request has fewer than W
    scores: Float64  # [B, W] summed log-probabilities; -inf where nodes is -1
    depth: Int64  # [B]


@dataclass(frozen=True, eq=False)
class NodeList:
    """Nodes of several requests, flat."""

    request: Int64  # [n] index into the batch
    node: Int64  # [n] trie nodes

    def __len__(self) -> int:
        return len(self.request)


@dataclass(frozen=True, eq=False)
class DraftTree:
    """Nodes that the target will probably need, and the verification they were drafted for.

    The parent of every node is the prompt, an evaluated node, a frontier node or another drafted node.
    """

    nodes: NodeList
    mode: Literal["strict"] = "strict"


@dataclass(frozen=True, eq=False)
class Request:
    """One history as the engines read it."""

    prompt: Int64  # [P] token ids
    unknown_items: int
    shortened: bool


@dataclass(frozen=True, eq=False)
class Verdict:
    """How far the evaluated nodes let the frontier advance, and what was found on the way."""

    frontier: Frontier
    missing: NodeList  # frontier nodes to evaluate before their requests can step; none: all are done
    needed: Int64  # [L] frontier nodes reached at each depth below L in this round, over all requests
    found: Int64  # [L] of these, how many had been evaluated already
    levels: Int64  # [L] requests whose frontier reached each depth
    levels_found: Int64  # [L] of these, requests for which every node had been evaluated


@dataclass(frozen=True)
class DraftShape:
    """How much to draft by hand: `width` nodes at each of `length` depths."""

    width: int = 40
    length: int = 3


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


class Recommendation(msgspec.Struct, frozen=True):
    """The ranked items of one request."""

    items: tuple[RecommendedItem, ...]
    stats: RequestStats
    unknown_items: int  # items of the history that the catalog lacks; dropped
    shortened: bool  # the context did not hold the history that the bundle's history length allows
