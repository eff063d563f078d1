"""Which drafted tokens the target lets pass: pure arithmetic on its log-probabilities."""

import numpy as np
from numpy.typing import NDArray

from ..pools.texts.branches import Branches
from .types import Accepted, Bool, Int64, TextVerification


def accept(logprobs: NDArray[np.float32], branches: Branches, row: Int64, verification: TextVerification) -> Accepted:
    """The longest branch of every request that passes, and the target's own token behind it.

    logprobs [B, R, V]: row 0 is what follows the request's last token, `row[i]` what follows drafted token i. A token
    passes where all before it do, and it is the target's most likely one or (relaxed) likely enough. Where branches of
    one length pass, that with the largest probability is taken. Strict verification is greedy decoding: only one can.
    Rows that nothing is decided by may hold anything.
    """
    batch, _, vocabulary = logprobs.shape
    failed = np.zeros(batch, bool)
    flat = logprobs.reshape(-1, vocabulary)
    above = branches.request * logprobs.shape[1]  # [n] where the request's rows begin
    before = above + np.where(branches.parent < 0, 0, row[branches.parent]) if len(row) else above
    score = np.full(len(row), -np.inf)  # summed log-probability of the branches that pass
    last = np.full(batch, -1)
    for depth in range(1, int(branches.depth.max(initial=0)) + 1):
        here = np.flatnonzero(branches.depth == depth)
        parent = branches.parent[here]
        sofar = np.where(parent < 0, 0.0, score[parent])
        here, sofar = here[sofar > -np.inf], sofar[sofar > -np.inf]
        passed, sound = _passes(flat, before[here], branches.token[here], verification)
        failed[branches.request[here[~sound]]] = True
        here, sofar = here[passed], sofar[passed]
        if not len(here):
            break
        score[here] = sofar + flat[before[here], branches.token[here]]
        order = here[np.lexsort((-score[here], branches.request[here]))]
        owner, first = np.unique(branches.request[order], return_index=True)
        last[owner] = order[first]
    end = np.arange(batch) * logprobs.shape[1]
    there = last >= 0
    end[there] += row[last[there]]
    bonus = flat[end].argmax(axis=1)
    return Accepted(last, bonus, failed | ~(flat[end, bonus] < np.inf))


def _passes(flat: NDArray[np.float32], row: Int64, token: Int64, verification: TextVerification) -> tuple[Bool, Bool]:
    """[m] whether tokens pass behind rows of `flat`, and [m] whether these are log-probabilities.

    Rows are read once however many tokens ask.
    """
    rows, which = np.unique(row, return_inverse=True)
    seen = flat[rows]
    top = seen.argmax(axis=1)  # NaN's place where there is any
    sound: Bool = (seen[np.arange(len(rows)), top] < np.inf)[which]
    passed: Bool = (top[which] == token) & sound
    if verification.mode == "relaxed":
        own = seen[which, token]
        with np.errstate(divide="ignore"):
            likely = np.flatnonzero(sound & ~passed & (own > np.log(verification.threshold)))
        better = (seen[which[likely]] > own[likely, None]).sum(axis=1)
        passed[likely[better < verification.accept_top_k]] = True
    return passed, sound
