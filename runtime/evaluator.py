"""One engine, its cache and what it knows: evaluates any trie nodes of a batch in one call."""

from collections.abc import Sequence

import numpy as np

from ..catalog.trie import ItemTrie
from ..engines.base import ForwardInputs
from .mask import tree_mask
from .nodes import EvaluatedNodes
from .prefix import SharedPrefix
from .stats import DecodeStats
from .types import Bool, Int64, NodeList


class TreeEvaluator:
    """Evaluates nodes for the requests of one batch; the first call carries the prompts as well.

    Owns the cache length, the slots and the positions: a node at depth d of a prompt of P tokens has
    position P + d - 1, whatever its slot.
    """

    def __init__(
        self, prefix: SharedPrefix, trie: ItemTrie, prompts: Sequence[Int64], stats: DecodeStats, timer: str
    ) -> None:
        """prompts: token ids [P] of each request, the shared prefix included; timer: which seconds of `stats` count."""
        self.nodes = EvaluatedNodes(trie)
        self.calls = np.zeros(len(prompts), np.int64)  # calls in which each request had tokens
        self.evaluated = np.zeros(len(prompts), np.int64)  # nodes evaluated for it, the root not counted
        self._engine, self._trie, self._stats, self._timer = prefix.engine, trie, stats, timer
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

    def evaluate(self, nodes: NodeList) -> None:
        """Evaluate nodes, and those of their ancestors that are not evaluated, in one call (or none)."""
        prompt = 0 if len(self.nodes) else self._prompts.shape[1]
        if prompt:  # the root of every request: its logits are those of the prompt's last token
            everyone = np.arange(len(self._row))
            nodes = NodeList(np.concatenate([everyone, nodes.request]), np.concatenate([everyone * 0, nodes.node]))
        nodes = self.nodes.with_ancestors(nodes)
        if not len(nodes):
            return
        count = np.bincount(nodes.request, minlength=len(self._row))
        rank = np.arange(len(nodes)) - (np.cumsum(count) - count)[nodes.request]  # [n] among its request's nodes
        where = prompt - 1 + rank if prompt else rank  # [n] where in the call each node's logits are
        below = nodes.node > 0
        where[~below] = self._lengths[nodes.request[~below]] - 1 - self._cache.length
        paths = self.nodes.add(nodes, self._cache.length + where)
        row = self._row[nodes.request]
        rows = np.zeros((self._cache.batch, int(count.max())), np.int64)
        rows[row, rank] = where
        tokens = NodeList(nodes.request[below], nodes.node[below])
        inputs = self._inputs(tokens, where[below], paths[below], prompt, rows)
        with self._stats.timed(self._timer):
            logprobs = self._engine.forward(inputs, self._cache)
        self.nodes.add_scores(nodes, row * logprobs.shape[1] + rank, logprobs.reshape(-1, logprobs.shape[2]))
        self.calls += count > 0
        self.evaluated += count - (1 if prompt else 0)

    def retain(self, active: Bool) -> None:
        """Drop the cache rows of requests that are not active [B] and never will be again, where that pays."""
        active = active & (self._row >= 0)
        rows = self._row[active]
        # Dropping copies what stays, once; keeping an idle row costs its share of every call.
        if not len(rows) or len(rows) > 0.75 * self._cache.batch:
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
        mask = tree_mask(
            self._engine.mask_type, self._row_lengths, self._cache.length, prompt, new - prompt, row, query, paths
        )
        return ForwardInputs(ids, positions, mask, rows)
