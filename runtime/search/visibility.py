"""Who sees what in one call: prompts are causal, a node sees its prompt and its ancestors."""

import numpy as np

from ..types import Int64


def tree_visibility(
    prompt_lengths: Int64, past: int, prompt: int, nodes: int, row: Int64, query: Int64, paths: Int64
) -> tuple[Int64, Int64]:
    """`visible_below` [B, T] and `visible_slots` [B, T, L] (engines/base.py) of a call of T = prompt + nodes tokens.

    prompt_lengths [B]: prompts fill slots 0 to length - 1. The first call brings what is not cached of
    them, padded at their end, in `prompt` slots (0 in later calls), behind `past` cached ones. Node i [n]
    is query `query[i]` of batch row `row[i]` and sees its prompt and the slots `paths[i]` ([n, L], itself
    included, -1 where none). Padding sees something, too; nothing real sees the padding.
    """
    batch = len(prompt_lengths)
    below = np.empty((batch, prompt + nodes), np.int64)
    below[:, :prompt] = np.arange(past + 1, past + prompt + 1)
    below[:, prompt:] = prompt_lengths[:, None]
    slots = np.full((batch, prompt + nodes, paths.shape[1]), -1, np.int64)
    slots[row, query] = paths
    return below, slots
