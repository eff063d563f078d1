"""One engine, its cache and what it knows: evaluates any trie nodes of a batch in one call."""

from collections.abc import Sequence

import numpy as np

from ...engines.base import ForwardInputs
from ..stats import Call, DecodeStats
from ..types import Bool, Int64, NodeList
from .beam import numbered
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
        needed = self._view.needs_scores(nodes.request, nodes.node)
        if not needed.all():
            nodes = NodeList(nodes.request[needed], nodes.node[needed])
        if not len(nodes):
            return nodes
        prompt = 0 if len(self.nodes) else self._prompts.shape[1]
        if prompt:  # the root of every request: its logits are those of the prompt's last token
            everyone = np.arange(len(self._row))
            nodes = NodeList(np.concatenate([everyone, nodes.request]), np.concatenate([everyone * 0, nodes.node]))
        nodes = self.nodes.with_ancestors(nodes)  # those whose scores are lacking, and what these need
        if not len(nodes):
            return nodes
        count, place = numbered(nodes.request, len(self._row))
        where = place  # [n] where in the call each node's logits are
        tokens, query = nodes, where
        if prompt:
            where = place + prompt - 1
            below = nodes.node > 0
            where[~below] = self._lengths[nodes.request[~below]] - 1 - self._cache.length
            tokens, query = NodeList(nodes.request[below], nodes.node[below]), where[below]
        paths = self.nodes.add(nodes, self._cache.length + where)
        parents, rows, place = self._scored(nodes, where, count, place)
        inputs = self._inputs(tokens, query, paths[below] if prompt else paths, prompt, rows)
        (batch, new), past = inputs.input_ids.shape, self._cache.length
        with self._stats.timed(self._timer) as timed:
            logprobs = self._engine.forward(inputs, self._cache)
        self._stats.called(Call(self._timer, batch, past, new, prompt, timed.seconds))
        self.nodes.add_scores(parents, place, logprobs.reshape(-1, logprobs.shape[2]))
        self.calls += count > 0
        self.evaluated += count - (1 if prompt else 0)
        return nodes

    def _scored(
        self, nodes: NodeList, where: Int64, count: Int64, place: Int64
    ) -> tuple[NodeList, Int64, Int64]:  # fmt: skip
        """Which of a call's nodes take a row of logits: not those that are there for their descendants only.

        where [n]: the nodes' places in the call; count [B], place [n]: as `numbered`. Returns these m nodes, the call's
        `logit_rows` [cache rows, R] and the row of each node [m] among all of these.
        """
        scored = self._view.needs_scores(nodes.request, nodes.node)
        if not scored.all():
            nodes, where = NodeList(nodes.request[scored], nodes.node[scored]), where[scored]
            count, place = numbered(nodes.request, len(self._row))
        row, most = self._row[nodes.request], int(count.max())
        rows = np.zeros((self._cache.batch, most), np.int64)
        rows[row, place] = where
        return nodes, rows, row * most + place

    def retain(self, active: Bool) -> None:
        """Drop the cache rows of requests that are not active [B] and never will be again, where that pays."""
        # Dropping copies what stays, once; keeping an idle row costs its share of every call. The first call, which
        # brings the prompts, is everybody's.
        if not 0 < np.count_nonzero(active) <= 0.75 * self._cache.batch or not len(self.nodes):
            return
        rows = self._row[active]
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
