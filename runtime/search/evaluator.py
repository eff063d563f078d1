"""One engine, its cache and what it knows: evaluates any trie nodes of a batch in one call."""

from collections.abc import Sequence

import numpy as np

from ...engines.base import ForwardInputs
from ...engines.cache import KVCache
from ...engines.reading import padded_prompts
from ..stats import Call, DecodeStats
from ..types import Bool, Int64, NodeList
from .beam import numbered
from .call_room import CallRoom, CallSize, Held
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
        room: CallRoom | None = None,
    ) -> None:
        """nodes: where to keep what is learned; prompts: token ids [P] of each request, the shared prefix included.

        timer: which seconds of `stats` count. room: what calls may take of memory; None: what they do.
        """
        self.nodes = nodes
        self.calls = np.zeros(len(prompts), np.int64)  # calls in which each request had tokens
        self.evaluated = np.zeros(len(prompts), np.int64)  # nodes evaluated for it, the root not counted
        self._prefix, self._view, self._trie = prefix, view, view.trie
        self._stats, self._timer, self._room = stats, timer, room
        self._cache: KVCache | None = None  # of all whose prompt was read
        self._row = np.full(len(prompts), -1)  # cache row of each request; -1 before it is read, and once it has left
        self._unread = np.ones(len(prompts), bool)
        self._row_lengths = np.empty(0, np.int64)  # [cache rows]
        self._prompts = list(prompts)
        self._lengths = prefix.lengths(prompts)
        self._opening = 0.0  # seconds that an encoder took to read what the next call begins with
        if room is not None and prefix.engine.footprint is not None:
            footprint, longest = prefix.engine.footprint, self.prompt_tokens
            slots, read = footprint.slots(longest), footprint.read(longest)
            room.hold(timer, Held(footprint, len(prompts), slots, 0, read, unread=True))

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the longest prompt, the shared prefix included."""
        return max(map(len, self._prompts), default=0)

    def evaluate(self, nodes: NodeList) -> NodeList:
        """Evaluate nodes whose scores are lacking, and their ancestors that are not cached, in one call (or none).

        Prompts that were not read yet come with them: all at first; later those of requests that have joined, in a call
        of their own, as it has many more tokens a row. Returns what was evaluated, these requests' roots included.
        """
        needed = self._view.needs_scores(nodes.request, nodes.node)
        if not needed.all():
            nodes = NodeList(nodes.request[needed], nodes.node[needed])
        if not len(nodes):
            return nodes
        fresh = self._unread.nonzero()[0]
        if len(fresh):  # the root of each: its logits are those of the prompt's last token
            nodes = NodeList(np.concatenate([fresh, nodes.request]), np.concatenate([fresh * 0, nodes.node]))
        nodes = self.nodes.with_ancestors(nodes)  # those whose scores are lacking, and what these need
        if not len(nodes):
            return nodes
        if not len(fresh):
            self._calls(nodes)
            return nodes
        new = self._unread[nodes.request]
        self._read(fresh, nodes if new.all() else NodeList(nodes.request[new], nodes.node[new]))
        if not new.all():
            self._calls(NodeList(nodes.request[~new], nodes.node[~new]))
        return nodes

    @property
    def limited(self) -> bool:
        """Whether memory is limited."""
        return self._room is not None

    def has_room(self, more: int) -> bool:
        """Whether memory lets every request have so many slots more, whoever evaluates for it."""
        return self._room is None or self._room.has_room(more)

    def _read(self, fresh: Int64, nodes: NodeList) -> None:
        """One call with the prompts of the requests [n] and what is to be evaluated of their nodes."""
        before, own = self._cache, [self._prompts[request] for request in fresh.tolist()]
        prompts, _ = padded_prompts(self._prefix.decoded(own))
        earlier = self._row, self._row_lengths
        with self._stats.timed(self._timer) as timed:
            self._cache = self._opened(own)
        self._opening = timed.seconds if self._cache.read else 0.0
        self._row = np.full(len(self._unread), -1)
        self._row[fresh], self._row_lengths = np.arange(len(fresh)), self._lengths[fresh]
        self._calls(nodes, prompts)
        self._unread[fresh] = False
        if before is not None and before.batch:
            self._row = np.where(self._row >= 0, self._row + before.batch, earlier[0])
            self._row_lengths = np.concatenate([earlier[1], self._row_lengths])
            with self._stats.timed(self._timer):
                before.join(self._cache)
            self._cache = before

    def _opened(self, prompts: Sequence[Int64]) -> KVCache:
        """As `SharedPrefix.opened`; where memory is limited, an encoder reads as many prompts at a time as it holds."""
        room, footprint, most = self._room, self._prefix.engine.footprint, len(prompts)
        if room is not None and footprint is not None:
            most = room.prompts(footprint, max(map(len, prompts)), most)
        cache = self._prefix.opened(prompts[:most])
        for start in range(most, len(prompts), most):
            cache.join(self._prefix.opened(prompts[start : start + most]))
        return cache

    def _calls(self, nodes: NodeList, prompts: Int64 | None = None) -> None:
        """As `_call`; where memory is limited, in as many calls as that takes.

        A call appends its tokens to the cache in order, so what is cut is the same but for the cut: first the prompts,
        then the nodes, parents first, see the same slots.
        """
        if self._room is None:
            self._call(nodes, prompts)
            return
        below = nodes.node > 0
        first = 0 if prompts is None else prompts.shape[1]
        whole = first + int(np.bincount(nodes.request[below]).max(initial=0))
        children = self._children(nodes)
        if self._fitting(children / whole, whole, unscored=max(0, first - 1)) == whole:
            self._call(nodes, prompts)
            return
        if prompts is not None:
            self._read_by_pieces(NodeList(nodes.request[~below], nodes.node[~below]), prompts)
            nodes = NodeList(nodes.request[below], nodes.node[below])
        count, place = numbered(nodes.request, len(self._row))
        start, most = 0, int(count.max())
        while start < most:
            end = start + self._fitting(children / most, most - start)
            here = (start <= place) & (place < end)
            self._call(NodeList(nodes.request[here], nodes.node[here]))
            start = end

    def _read_by_pieces(self, roots: NodeList, prompts: Int64) -> None:
        """The prompts [cache rows, P], in several calls; each root comes with its prompt's last token."""
        cache, start, most = self._cache, 0, prompts.shape[1]
        assert cache is not None
        each = self._children(roots) / most
        while start < most:
            end = start + self._fitting(each, most - start, unscored=most)
            last = self._lengths[roots.request] - cache.length - 1
            here = (last >= 0) & (last < end - start)
            self._call(NodeList(roots.request[here], roots.node[here]), prompts[:, start:end])
            start = end

    def _children(self, nodes: NodeList) -> int:
        """How many children the nodes have."""
        return int(self._trie.child_count[nodes.node].sum())

    def _fitting(self, children: float, most: int, *, unscored: int = 0) -> int:
        """How many tokens of each row, of `most`, the next call may have; children, unscored: as of `CallSize`."""
        room, cache, footprint = self._room, self._cache, self._prefix.engine.footprint
        assert room is not None
        assert cache is not None
        assert footprint is not None
        room.hold(self._timer, Held(footprint, cache.batch, cache.length, cache.length, cache.read))
        return room.tokens(CallSize(footprint, cache.batch, cache.length, unscored, children, cache.read), most)

    def _call(self, nodes: NodeList, prompts: Int64 | None = None) -> None:
        """One call on the cache. nodes: as `with_ancestors` lists them; prompts [cache rows, P]: what is to be read."""
        cache, prompt = self._cache, 0 if prompts is None else prompts.shape[1]
        assert cache is not None
        count, place = numbered(nodes.request, len(self._row))
        where = place  # [n] where in the call each node's logits are
        tokens, query = nodes, where
        if prompt:
            where = place + prompt - 1
            below = nodes.node > 0
            where[~below] = self._lengths[nodes.request[~below]] - 1 - cache.length
            tokens, query = NodeList(nodes.request[below], nodes.node[below]), where[below]
        paths = self.nodes.add(nodes, cache.length + where)
        parents, rows, place = self._scored(nodes, where, count, place)
        inputs = self._inputs(tokens, query, paths[below] if prompt else paths, prompts, rows)
        (batch, new), past = inputs.input_ids.shape, cache.length
        with self._stats.timed(self._timer) as timed:
            logprobs = self._prefix.engine.forward(inputs, cache)
        self._stats.called(self._as_call(batch, past, new, prompt, timed.seconds))
        if len(parents):
            self.nodes.add_scores(parents, place, logprobs.reshape(-1, logprobs.shape[2]))
        self.calls += (count > 0) | ((self._row >= 0) & (self._lengths > past) if prompt else False)
        self.evaluated += np.bincount(tokens.request, minlength=len(self._row))

    def _as_call(self, batch: int, past: int, new: int, prompt: int, seconds: float) -> Call:
        """A call as it is counted: prompts that an encoder has read are the first call's, and cached in later ones."""
        assert self._cache is not None
        read, opening, self._opening = self._cache.read, self._opening, 0.0
        if read and not past:
            return Call(self._timer, batch, 0, new + read, prompt + read, seconds + opening)
        return Call(self._timer, batch, past + read, new, prompt, seconds)

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
        row, most = self._row[nodes.request], max(1, int(count.max()))  # no axis of a call is empty
        rows = np.zeros((len(self._row_lengths), most), np.int64)
        rows[row, place] = where
        return nodes, rows, row * most + place

    def retain(self, active: Bool) -> None:
        """Drop the cache rows of requests that are not active [B] and never will be again, where that pays."""
        # Dropping copies what stays, once; keeping an idle row costs its share of every call. The first call, which
        # brings the prompts, is everybody's.
        if self._cache is None:
            return
        stay = active & (self._row >= 0)
        if 0 < np.count_nonzero(stay) <= 0.75 * self._cache.batch:
            with self._stats.timed(self._timer):
                self._cache.keep(self._row[stay])
            self._seat(stay)

    def reseat(self, kept: Int64, prompts: Sequence[Int64]) -> None:
        """Serve the requests kept [B'], in this order, and behind them others with these prompts, from now on.

        Slots that nobody sees any more are given back: the cache is as long as what it serves.
        """
        self.nodes.reseat(kept, len(self._row))
        nobody = np.zeros(len(prompts), np.int64)
        self.calls, self.evaluated = (np.append(counts[kept], nobody) for counts in (self.calls, self.evaluated))
        self._unread = np.append(self._unread[kept], nobody == 0)
        self._prompts = [self._prompts[seat] for seat in kept.tolist()] + list(prompts)
        self._lengths = np.append(self._lengths[kept], self._prefix.lengths(prompts))
        self._row = np.append(self._row[kept], nobody - 1)
        stay = self._row >= 0
        if self._cache is None or not stay.any():
            self._cache, self._row_lengths, self._row = None, self._row_lengths[:0], np.full(len(stay), -1)
            return
        slots = self.nodes.compact(np.where(stay, self._lengths, 0), self._cache.length)
        with self._stats.timed(self._timer):
            self._cache.keep(self._row[stay], slots[stay])
        self._seat(stay)

    def _seat(self, stay: Bool) -> None:
        """The cache's rows are those of these requests [B], in order."""
        self._row_lengths, self._row = self._lengths[stay], np.where(stay, stay.cumsum() - 1, -1)

    def _inputs(
        self, tokens: NodeList, query: Int64, paths: Int64, prompts: Int64 | None, rows: Int64
    ) -> ForwardInputs:
        """One call's inputs: the prompts (none once they are cached), then the nodes."""
        cache, prompt = self._cache, 0 if prompts is None else prompts.shape[1]
        assert cache is not None
        new = max(int(query.max(initial=0)) + 1, prompt)
        ids = np.zeros((cache.batch, new), np.int64)
        positions = np.zeros_like(ids)
        if prompts is not None:
            ids[:, :prompt] = prompts
            positions[:, :prompt] = np.arange(cache.length, cache.length + prompt)
        row = self._row[tokens.request]
        ids[row, query] = self._trie.tokens(tokens.node)
        positions[row, query] = self._lengths[tokens.request] + self._trie.depth[tokens.node] - 1
        visible = tree_visibility(self._row_lengths, cache.length, prompt, new - prompt, row, query, paths)
        return ForwardInputs(ids, positions, *visible, rows)
