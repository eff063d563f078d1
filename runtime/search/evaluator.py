"""One engine, its cache and what it knows: evaluates any trie nodes of a batch in one call."""

from collections.abc import Sequence

import numpy as np

from ...engines.base import ForwardInputs
from ..stats import DecodeStats
from ..types import Bool, Int64, NodeList
from .nodes import EvaluatedNodes
from .prefix import SharedPrefix
from .trie_view import TrieView
from .visibility import tree_visibility


class TreeEvaluator:
    """Evaluates nodes for the requests of one batch; the first call carries the prompts as well.

    Owns the cache length, the slots and the positions: a node at depth d of a prompt of P tokens has
    position P + d - 1, whatever its slot.
    """

    def __init__(
        self,
        prefix: SharedPrefix,
        view: TrieView,
        nodes: EvaluatedNodes,
        prompts: Sequence[Int64],
        stats: DecodeStats,
        timer: str,
    ) -> None:
        """nodes: where to keep what is learned; prompts: token ids [P] of each request, the shared prefix included.

        timer: which seconds of `stats` count.
        """
        self.nodes = nodes
        self.calls = np.zeros(len(prompts), np.int64)  # calls in which each request had tokens
        self.evaluated = np.zeros(len(prompts), np.int64)  # nodes evaluated for it, the root not counted
        self._engine, self._view, self._trie = prefix.engine, view, view.trie
        self._stats, self._timer = stats, timer
        with stats.timed(timer):
            self._cache = prefix.new_cache(len(prompts))
        self._row = np.arange(len(prompts))  # cache row of each request; -1 once it has left
        self._lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        self._row_lengths = self._lengths  # [cache rows]
        own = self._lengths - prefix.length
        self._prompts = np.zeros((len(prompts), int(own.max())), np.int64)  # what the first call has to bring
        self._prompts[np.arange(self._prompts.shape[1]) < own[:, None]] = np.concatenate(
            [prompt[prefix.length :] for prompt in prompts]
        )

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the longest prompt, the shared prefix included."""
        return int(self._lengths.max())

    def evaluate(self, nodes: NodeList) -> NodeList:
        """Evaluate nodes whose scores are lacking, and their ancestors that are not cached, in one call (or none).

        Returns what was evaluated, in the first call every request's root included.
        """
        lacking = self.nodes.lacks(nodes.request, nodes.node)
        nodes = NodeList(nodes.request[lacking], nodes.node[lacking])
        if not len(nodes):
            return nodes
        prompt = 0 if len(self.nodes) else self._prompts.shape[1]
        if prompt:  # the root of every request: its logits are those of the prompt's last token
            everyone = np.arange(len(self._row))
            nodes = NodeList(np.concatenate([everyone, nodes.request]), np.concatenate([everyone * 0, nodes.node]))
        nodes = self.nodes.with_ancestors(nodes)
        count = np.bincount(nodes.request, minlength=len(self._row))
        rank = np.arange(len(nodes)) - (np.cumsum(count) - count)[nodes.request]  # [n] among its request's nodes
        where = prompt - 1 + rank if prompt else rank  # [n] where in the call each node's logits are
        below = nodes.node > 0
        where[~below] = self._lengths[nodes.request[~below]] - 1 - self._cache.length
        paths = self.nodes.add(nodes, self._cache.length + where)
        # A node that is there for its descendants only needs no row of logits.
        scored = self._view.needs_scores(nodes.request, nodes.node)
        parents, where_scored = NodeList(nodes.request[scored], nodes.node[scored]), where[scored]
        count_scored = np.bincount(parents.request, minlength=len(self._row))
        place = np.arange(len(parents)) - (np.cumsum(count_scored) - count_scored)[parents.request]
        row = self._row[parents.request]
        rows = np.zeros((self._cache.batch, int(count_scored.max())), np.int64)
        rows[row, place] = where_scored
        tokens = NodeList(nodes.request[below], nodes.node[below])
        inputs = self._inputs(tokens, where[below], paths[below], prompt, rows)
        batch, new = inputs.input_ids.shape
        with self._stats.call(self._timer, batch, self._cache.length, new, prompt):
            logprobs = self._engine.forward(inputs, self._cache)
        self.nodes.add_scores(parents, row * logprobs.shape[1] + place, logprobs.reshape(-1, logprobs.shape[2]))
        self.calls += count > 0
        self.evaluated += count - (1 if prompt else 0)
        return nodes

    def retain(self, active: Bool) -> None:
        """Drop the cache rows of requests that are not active [B] and never will be again, where that pays."""
        active = active & (self._row >= 0)
        rows = self._row[active]
        # Dropping copies what stays, once; keeping an idle row costs its share of every call. The first call, which
        # brings the prompts, is everybody's.
        if not len(self.nodes) or not len(rows) or len(rows) > 0.75 * self._cache.batch:
            return
        with self._stats.timed(self._timer):
            self._cache.keep(rows)
        self._row_lengths = self._lengths[active]
        self._row = np.where(active, np.cumsum(active) - 1, -1)

    def _inputs(self, tokens: NodeList, query: Int64, paths: Int64, prompt: int, rows: Int64) -> ForwardInputs:
        """One call's inputs: the prompts padded to `prompt` tokens (0 once they are cached), then the nodes."""
        new = max(int(query.max(initial=0)) + 1, prompt)
        ids = np.zeros((self._cache.batch, new), np.int64)
        positions = np.zeros_like(ids)
        if prompt:  # no request has left yet: a row a request
            ids[:, :prompt] = self._prompts
            positions[:, :prompt] = np.arange(self._cache.length, self._cache.length + prompt)
        row = self._row[tokens.request]
        ids[row, query] = self._trie.tokens(tokens.node)
        positions[row, query] = self._lengths[tokens.request] + self._trie.depth[tokens.node] - 1
        visible = tree_visibility(self._row_lengths, self._cache.length, prompt, new - prompt, row, query, paths)
        return ForwardInputs(ids, positions, *visible, rows)
