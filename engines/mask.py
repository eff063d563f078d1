"""The additive attention mask that exported graphs take, from who sees what."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .base import Int64


@dataclass(frozen=True)
class MaskType:
    """How the additive attention mask is written: its NumPy type and its value for "hidden".

    "Visible" is 0 in every type. bfloat16, which NumPy lacks, is written as its bits in uint16.
    """

    dtype: np.dtype[np.generic]
    hidden: float | int


MASK_TYPES = {
    "fp32": MaskType(np.dtype(np.float32), float(np.finfo(np.float32).min)),
    "fp16": MaskType(np.dtype(np.float16), float(np.finfo(np.float16).min)),
    "bf16": MaskType(np.dtype(np.uint16), 0xFF7F),
}


def dense_mask(visible_below: Int64, visible_slots: Int64, past: int, mask_type: MaskType) -> NDArray[np.generic]:
    """The mask [B, 1, T, S + T] of a call on `past` (S) cached slots; who sees what as in `ForwardInputs`."""
    new = visible_below.shape[1]
    shown = np.arange(past + new) < visible_below[:, :, None]
    mask = np.where(shown, np.zeros((), mask_type.dtype), np.full((), mask_type.hidden, mask_type.dtype))
    row, token, level = np.nonzero(visible_slots >= 0)
    mask[row, token, visible_slots[row, token, level]] = 0
    return mask[:, None]
