"""Relaxed sampling verification (AtSpeed's second mode, arXiv 2410.05165). An approximation; see docs/modes.md."""

import numpy as np

from ..types import Beams, Bool, DraftTree, Float64, Frontier, Int64, Proposals
from .beam import best_per_request
from .nodes import EvaluatedNodes
from .noise import ACCEPT, CHOOSE, REST, TARGET, Noise
from .trie_view import TrieView
from .verify import Choice, Chooser, Verifier

FIRST, LAST = 1e6, -1e6  # what is certain to be chosen, and what only if nothing else is left


class RelaxedVerifier(Verifier):
    """K sequences a step, drawn nearly from the target's distribution, most of them by accepting drafted ones.

    p and q are the target's and the draft's distributions over all (beam, token) of a step: softmaxes of
    summed log-probabilities, divided by the temperature. A drafted sequence is accepted with probability
    min(1, p/q), q renormalised over the prefixes that have survived. At least K accepted: K of them,
    chosen uniformly, go on. Fewer: the others are drawn without replacement from the normalised
    max(0, p - q), and the round's draft is used no further. Where nothing was drafted, or all that could be
    drawn are leaves, K are drawn from p. A leaf that was drawn keeps its place among the K.

    The residual may sum to nothing or to fewer than are wanted (prefixes with few children): what lacks is
    then drawn from p. The draft draws without replacement while q is the probability of a single draw, so
    the result is biased; exact sampling is `StrictVerifier` with mode "sampled".
    """

    def __init__(self, view: TrieView, noise: Noise, temperature: float) -> None:
        super().__init__("relaxed", view)
        self._noise, self._temperature = noise, temperature

    def _chooser(self, frontier: Frontier, known: EvaluatedNodes, tree: DraftTree) -> Chooser:
        start = frontier.depth
        trusted = np.ones(len(start), bool)  # [B] no level of this round has been rejected yet

        def choose(kids: Beams, at: Frontier, ready: Bool) -> Choice:
            nonlocal trusted
            log_p = self._normalised(kids.request, kids.score / self._temperature, len(start))
            log_q, drawn = self._drafted(kids, tree.proposals)
            # Where all are leaves the target has said all there is to say: no guess is needed.
            inner = ~self.view.is_leaf(kids.node)
            drafted = np.bincount(kids.request, trusted[kids.request] & inner & np.isfinite(log_q), len(start)) > 0
            log_q = self._normalised(kids.request, log_q, len(start))
            accepted = drawn & (self._uniform(kids, ACCEPT) <= np.exp(np.minimum(log_p - log_q, 0)))
            room = at.width - (at.finished.nodes >= 0).sum(axis=1)  # what is drawn and finished is not drawn again
            wanted = np.minimum(np.bincount(kids.request, minlength=len(start)), room)
            trusted &= ~drafted | (np.bincount(kids.request, accepted, len(start)) >= wanted)
            keys = self._keys(kids, log_p, log_q, accepted, drafted)
            return self._split(kids, best_per_request(kids.request, keys, len(start), room), room)

        return choose

    def _keys(self, kids: Beams, log_p: Float64, log_q: Float64, accepted: Bool, drafted: Bool) -> Float64:
        """[m] what the K largest of every request are taken by: accepted ones first, then draws from the residual."""
        from_p = log_p + self._noise.gumbel(kids.request, kids.node, TARGET)
        with np.errstate(divide="ignore"):
            residual = np.log(np.maximum(np.exp(log_p) - np.exp(log_q), 0))
        from_residual = residual + self._noise.gumbel(kids.request, kids.node, REST)
        rest = np.where(np.isfinite(from_residual), from_residual, LAST + from_p)
        after_draft = np.where(accepted, FIRST + self._uniform(kids, CHOOSE), rest)
        return np.where(drafted[kids.request], after_draft, from_p)

    def _split(self, kids: Beams, chosen: Int64, width: Int64) -> Choice:
        """The chosen kids as prefixes that go on and leaves that finish, each best first."""
        parts = []
        batch = len(chosen)
        flat = np.sort(chosen[chosen >= 0])
        leaf = self.view.is_leaf(kids.node[flat])
        for part in (flat[~leaf], flat[leaf]):
            ranked = best_per_request(kids.request[part], kids.score[part], batch, width)
            parts.append(np.where(ranked >= 0, part[ranked], -1) if len(part) else np.full((batch, 1), -1))
        return Choice(*parts)

    def _drafted(self, kids: Beams, proposals: Proposals | None) -> tuple[Float64, Bool]:
        """The draft's unnormalised log-probability of every kid (-inf: not one of its candidates), and what it drew."""
        log_q, drawn = np.full(len(kids.node), -np.inf), np.zeros(len(kids.node), bool)
        if proposals is None:
            return log_q, drawn
        stride = len(self.view.trie.parent)
        keys = proposals.nodes.request * stride + proposals.nodes.node
        order = np.argsort(keys, kind="stable")
        wanted = kids.request * stride + kids.node
        at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        match = keys[at] == wanted
        log_q[match], drawn[match] = proposals.log_q[at][match], proposals.drawn[at][match]
        return log_q, drawn

    def _normalised(self, request: Int64, log: Float64, batch: int) -> Float64:
        """Log-probabilities that sum to 1 in every request; -inf throughout where all are -inf."""
        largest = np.full(batch, -np.inf)
        np.maximum.at(largest, request, log)
        largest[np.isneginf(largest)] = 0
        shifted = log - largest[request]
        total = np.bincount(request, np.exp(shifted), batch)
        normalised: Float64 = shifted - np.log(np.where(total > 0, total, 1))[request]
        return normalised

    def _uniform(self, kids: Beams, stream: int) -> Float64:
        return self._noise.uniform(kids.request, kids.node, stream)
