"""The target as a teacher: its own beam trees over histories, made by the runtime that serves it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...catalog.errors import EngineError
from ...catalog.trie import ItemTrie
from ...engines.base import Engine
from ...runtime.drafting.drafter import NoDrafter
from ...runtime.planning.policy import FixedPlanning
from ...runtime.search.evaluator import TreeEvaluator
from ...runtime.search.nodes import EvaluatedNodes
from ...runtime.search.prefix import SharedPrefix
from ...runtime.search.scoring import Scoring
from ...runtime.search.trie_view import TrieView
from ...runtime.search.verify import StrictVerifier
from ...runtime.session import Session
from ...runtime.stats import DecodeStats
from ...runtime.types import Beams, Int64, NodeList
from .trees import Trees

BATCH = 32  # prompts a call, where many are searched


class Searcher:
    """An engine that searches: plain beam search, and everything it learned of the nodes on its way."""

    def __init__(self, engine: Engine, trie: ItemTrie, prefix: Sequence[int], width: int) -> None:
        """prefix: tokens that all prompts begin with; width: K, beams kept at every depth."""
        self._trie, self._width = trie, min(width, trie.identifiers)
        self._prefix = SharedPrefix(engine, np.array(prefix, np.int64))
        self._view = TrieView(trie)

    def trees(self, prompts: Sequence[Int64], also: NodeList | None = None) -> Trees:
        """The beam trees of a batch of prompts [P] (token ids): every node that was evaluated.

        also: nodes to evaluate beside the search's own (leaves are left out), with their ancestors.
        """
        batch, evaluator = len(prompts), self._evaluator(prompts)
        if also is not None:
            inner = ~self._view.is_leaf(also.node)
            evaluator.evaluate(NodeList(also.request[inner], also.node[inner]))
        session = Session(
            evaluator, NoDrafter("strict", batch), StrictVerifier("strict", self._view), FixedPlanning(None),
            self._view, DecodeStats(self._trie.length),
        )  # fmt: skip
        frontier = session.run(np.full(batch, self._width), np.zeros(batch))
        return collected(evaluator.nodes, batch, frontier.finished.nodes)

    def at(self, prompts: Sequence[Int64], trees: Trees) -> Trees:
        """What this engine thinks of the nodes of somebody else's trees of the same prompts; their leaves stay."""
        evaluator = self._evaluator(prompts)
        evaluator.evaluate(NodeList(np.repeat(np.arange(len(trees)), trees.count), trees.node.astype(np.int64)))
        return collected(evaluator.nodes, len(prompts), trees.leaves)

    def _evaluator(self, prompts: Sequence[Int64]) -> TreeEvaluator:
        nodes = EvaluatedNodes(self._view, Scoring("full"))
        return TreeEvaluator(self._prefix, self._view, nodes, prompts, DecodeStats(self._trie.length), "target")


def collected(nodes: EvaluatedNodes, batch: int, leaves: NDArray[np.integer]) -> Trees:
    """What is known of all evaluated nodes of a batch; leaves [B, K] are kept beside them.

    Raises `EngineError` where some of it is no number: nothing can be learned from that.
    """
    if len(nodes.failed):
        raise EngineError(
            f"For {len(nodes.failed)} of {batch} prompts the model gives NaN or infinity as a log-probability: "
            "its activations overflow, or its weights are damaged. Use fp32 or bf16, or an earlier checkpoint."
        )
    listed = nodes.listed()
    zeros = np.zeros(len(listed))
    _, children = nodes.children(Beams(listed.request, listed.node, zeros, zeros))
    count = np.bincount(listed.request, minlength=batch)
    return Trees(count, listed.node.astype(np.int32), children.score.astype(np.float32), leaves.astype(np.int32))


def truth_paths(trie: ItemTrie, leaves: Int64) -> NodeList:
    """The inner nodes on the way to one leaf of each prompt [B] (-1: none)."""
    request, node = np.flatnonzero(leaves >= 0), leaves[leaves >= 0]
    requests, nodes = [], []
    for _ in range(trie.length):
        node = trie.parent[node].astype(np.int64)
        request, node = request[node > 0], node[node > 0]
        requests.append(request)
        nodes.append(node)
    return NodeList(np.concatenate(requests), np.concatenate(nodes))
