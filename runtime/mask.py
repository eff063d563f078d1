"""The additive attention mask of one call: prompts are causal, a node sees its prompt and its ancestors."""

import numpy as np
from numpy.typing import NDArray

from ..engines.base import MaskType
from .types import Int64


def tree_mask(
    mask_type: MaskType,
    prompt_lengths: Int64,
    past: int,
    prompt: int,
    nodes: int,
    row: Int64,
    query: Int64,
    paths: Int64,
) -> NDArray[np.generic]:
    """The mask [B, 1, prompt + nodes, past + prompt + nodes] of a call that appends `prompt` and then `nodes` slots.

    prompt_lengths [B]: prompts fill slots 0 to length - 1. The first call brings what is not cached of
    them, padded at their end, in `prompt` slots (0 in later calls). Node i [n] is query `query[i]` of batch
    row `row[i]` and sees its prompt and the slots `paths[i]` ([n, L], itself included, -1 where none).
    Padding sees something finite too, so that no row of a softmax is empty; nothing real sees the padding.
    """
    new, batch = prompt + nodes, len(prompt_lengths)
    mask = np.full((batch, 1, new, past + new), mask_type.hidden, mask_type.dtype)
    if prompt:
        mask[:, :, :prompt, : past + prompt] = np.where(np.tri(prompt, past + prompt, past, bool), 0, mask_type.hidden)
    longest = int(prompt_lengths.max())
    shown = np.arange(longest) < prompt_lengths[:, None]
    mask[:, 0, prompt:, :longest] = np.where(shown, 0, mask_type.hidden)[:, None]
    node, level = np.nonzero(paths >= 0)
    mask[row[node], 0, query[node], paths[node, level]] = 0
    return mask
