"""Requests and lists as arrays, for callers that make prompts themselves."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..catalog.errors import OptionError
from ..catalog.hashing import text_key
from ..runtime.recommender import Recommender
from ..runtime.search.prefix import worth_sharing
from ..runtime.types import Int64, Recommendation, Request

Float32 = NDArray[np.float32]


def array_requests(recommender: Recommender, tokens: ArrayLike, lengths: ArrayLike, k: int) -> list[Request]:
    """Prompts as requests: token ids [B, P], of each row the first `lengths` [B].

    A prompt is what the bundle's own encoder makes of a history (`Recommender.encode(history).prompt`), what all
    prompts begin with included. Raises `OptionError` for what is none.
    """
    ids, counts = _whole(tokens, "tokens", 2), _whole(lengths, "lengths", 1)
    if len(ids) != len(counts):
        raise OptionError(f"got {len(ids)} rows of tokens and {len(counts)} lengths; expected as many.")
    most = min(ids.shape[1], recommender.encoder.longest)
    bad = np.flatnonzero((counts < 1) | (counts > most))
    if len(bad):
        raise OptionError(f"lengths[{bad[0]}] is {counts[bad[0]]}, expected 1 to {most} tokens.")
    inside = np.arange(ids.shape[1]) < counts[:, None]
    wrong = np.argwhere(inside & ((ids < 0) | (ids >= recommender.vocabulary)))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise OptionError(
            f"tokens[{row}, {column}] is {ids[row, column]}, expected a token id below {recommender.vocabulary}."
        )
    beginning = recommender.encoder.beginning
    shared = worth_sharing(len(beginning))
    if shared:
        other = np.flatnonzero((counts <= shared) | (ids[:, :shared] != beginning).any(axis=1))
        if len(other):
            raise OptionError(
                f"tokens[{other[0]}] does not begin as all prompts of this bundle do, with {shared} tokens and more."
            )
    return [_request(recommender, row[:count].copy(), k) for row, count in zip(ids, counts.tolist(), strict=True)]


def as_arrays(recommender: Recommender, lists: list[Recommendation], k: int) -> tuple[Int64, Float32]:
    """Lists as items [B, K], their places in the catalog (-1: no more), and scores [B, K] (-inf)."""
    items, scores = np.full((len(lists), k), -1), np.full((len(lists), k), -np.inf, np.float32)
    position = recommender.catalog.position
    for row, one in enumerate(lists):
        items[row, : len(one.items)] = position.find([entry.item for entry in one.items])
        scores[row, : len(one.items)] = [entry.score for entry in one.items]
    return items, scores


def _request(recommender: Recommender, prompt: Int64, k: int) -> Request:
    nothing = np.empty(0, np.int64)
    key = text_key(prompt.tobytes().hex())
    return Request(prompt, nothing, None, 0, False, key, k, None, nothing, recommender.trie)


def _whole(values: ArrayLike, name: str, axes: int) -> Int64:
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of unequal lengths
        raise OptionError(f"{name} is no array: {error}.") from None
    if array.ndim != axes or not np.issubdtype(array.dtype, np.integer) or not array.size:
        raise OptionError(
            f"{name} is an array of {array.dtype} {list(array.shape)}; expected whole numbers in {axes} axes, some."
        )
    return array.astype(np.int64, copy=False)
