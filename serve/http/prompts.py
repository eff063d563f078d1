"""Prompts of callers that hold arrays, as requests."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from ...catalog.errors import OptionError
from ...runtime.encoding import check_k
from ...runtime.types import Request
from ..errors import Overloaded
from ..recommender import AsyncRecommender
from ..tickets import Ticket

Int64 = NDArray[np.int64]
NONE = np.empty(0, np.int64)


async def serve_arrays(
    recommender: AsyncRecommender, tokens: Int64, lengths: Int64, k: int
) -> tuple[Int64, NDArray[np.float32]]:
    """tokens [B, P], of which each row's first lengths [B] count, to catalog positions and scores [B, K].

    Behind a short list's end stand -1 and -inf. Raises `OptionError` for what cannot be asked.
    """
    edition = recommender.edition
    own = edition.recommender
    k = check_k(k, own.max_k)
    if len(lengths) != len(tokens) or not ((lengths >= 1) & (lengths <= tokens.shape[1])).all():
        raise OptionError(f"expected a length of 1 to {tokens.shape[1]} for each of {len(tokens)} prompts.")
    lane, futures = edition.lane(None), []
    for row, length in zip(tokens, lengths.tolist(), strict=True):
        prompt = np.ascontiguousarray(row[:length], np.int64)
        request = Request(prompt, NONE, None, 0, False, 0, k, None, NONE, own.trie)
        ticket = Ticket(request, k, lane, 0, None)
        try:
            recommender.worker.waiting.put(ticket)
        except Overloaded:
            recommender.worker.observer.refused(edition.model)
            raise
        futures.append(ticket.future)
    served = await asyncio.gather(*map(asyncio.wrap_future, futures))
    places, scores = np.full((len(tokens), k), -1, np.int64), np.full((len(tokens), k), -np.inf, np.float32)
    position = own.catalog.position
    for row, answer in enumerate(served):
        found = answer.recommendation.items
        places[row, : len(found)] = [position[each.item] for each in found]
        scores[row, : len(found)] = [each.score for each in found]
    return places, scores
