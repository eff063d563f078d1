"""A call as what its graph takes beside the cache: who sees what as an additive mask, or by indices."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from .base import ForwardInputs, Int64


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


def slot_positions(inputs: ForwardInputs, past: int) -> Int64:
    """The position [B, S + T] of every slot that some token of a call on `past` (S) cached slots sees.

    What a token sees below a number is a prompt, whose slots are its positions; the slots that it names are its
    ancestors and itself, parents first, each one position behind the last.
    """
    batch, new = inputs.input_ids.shape
    positions = np.broadcast_to(np.arange(past + new), (batch, past + new)).copy()
    named = inputs.visible_slots >= 0
    behind = named[:, :, ::-1].cumsum(axis=2)[:, :, ::-1] - 1  # where named: how many follow
    row, token, level = np.nonzero(named)
    where = inputs.visible_slots[row, token, level]
    positions[row, where] = inputs.position_ids[row, token] - behind[row, token, level]
    return positions


def dense_feed(
    inputs: ForwardInputs, past: int, mask_type: MaskType, *, positions: bool = False
) -> dict[str, NDArray[np.generic]]:
    """The inputs of an exported graph, by name, for a call on `past` cached slots; all but the keys and values.

    positions: whether it takes `slot_positions`.
    """
    feed = {
        "input_ids": inputs.input_ids,
        "position_ids": inputs.position_ids,
        "attention_mask": dense_mask(inputs.visible_below, inputs.visible_slots, past, mask_type),
        "logit_rows": inputs.logit_rows,
    }
    if positions:
        feed["slot_positions"] = slot_positions(inputs, past)
    return feed


def index_feed(inputs: ForwardInputs, *, tokens: int, rows: int, path: int, remedy: str) -> dict[str, Int64]:
    """The inputs of a graph with index inputs, by name; all but the keys and values.

    The call is padded to `tokens` tokens, which see slot 0, and `rows` rows of logits. path: slots that a token may
    name in this graph. Raises `EngineError`, with its `remedy`, where one names more.
    """
    slots = inputs.visible_slots
    if slots.shape[2] > path:
        raise EngineError(
            f"A token of this call names {slots.shape[2]} slots, the engine was built for at most {path}. {remedy}"
        )
    paths = np.full((len(slots), tokens, path), -1)
    paths[:, : slots.shape[1], : slots.shape[2]] = slots
    return {
        "input_ids": _filled(inputs.input_ids, tokens, 0),
        "position_ids": _filled(inputs.position_ids, tokens, 0),
        "visible_below": _filled(inputs.visible_below, tokens, 1),
        "visible_slots": paths,
        "logit_rows": _filled(inputs.logit_rows, rows, 0),
    }


def _filled(array: Int64, count: int, value: int) -> Int64:
    """[B, n] widened to [B, count]."""
    out = np.full((len(array), count), value)
    out[:, : array.shape[1]] = array
    return out
