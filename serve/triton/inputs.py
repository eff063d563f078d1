"""A request's inputs as the tensors that all protocols share."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..protocol.refusals import Refused
from ..protocol.tensors import INPUTS, Tensor, TensorKind

ITEM_IDS = "item_ids"  # items as whole numbers: Triton fixes the type of an input
MODEL_INPUTS = {**INPUTS, ITEM_IDS: TensorKind("INT64", (-1, -1))}  # what config.pbtxt declares; all are optional


def tensors_of(utils: Any, request: Any) -> dict[str, Tensor]:
    """Copies of a request's inputs, by name. Raises `Refused` for texts that are none, and for ids of no history.

    utils: the module `triton_python_backend_utils`.
    """
    found = dict(_read(utils, request))
    if ITEM_IDS in found:
        if "items" in found:
            raise Refused(400, f"got items and {ITEM_IDS}; expected one of them.", field="inputs")
        found["items"] = _texts_of(found.pop(ITEM_IDS), found.pop("lengths", None))
    return found


def _read(utils: Any, request: Any) -> Iterator[tuple[str, Tensor]]:
    for name in MODEL_INPUTS:
        tensor = utils.get_input_tensor_by_name(request, name)
        if tensor is not None:
            values = np.array(tensor.as_numpy())
            yield name, _decoded(name, values) if values.dtype == object else values


def _decoded(name: str, values: Tensor) -> Tensor:
    """Bytes as texts."""
    try:
        texts = [value.decode() for value in values.ravel()]
    except UnicodeDecodeError as error:
        raise Refused(400, f"the bytes are no text in UTF-8: {error}.", field=f"inputs.{name}") from None
    decoded = np.empty(values.size, object)
    decoded[:] = texts
    return decoded.reshape(values.shape)


def _texts_of(ids: Tensor, lengths: Tensor | None) -> Tensor:
    """Ids [B, N] as texts; of each row the first `lengths` [B], where they are told."""
    texts = ids.astype(str).astype(object)
    if lengths is None:
        return texts
    if lengths.shape != ids.shape[:1]:
        raise Refused(400, f"got {len(lengths)} lengths for {len(ids)} histories.", field="inputs.lengths")
    wrong = np.flatnonzero((lengths < 1) | (lengths > ids.shape[1]))
    if len(wrong):
        raise Refused(
            400, f"got {lengths[wrong[0]]} for history {wrong[0]}; expected 1 to {ids.shape[1]} items.",
            field="inputs.lengths",
        )  # fmt: skip
    texts[np.arange(ids.shape[1]) >= lengths[:, None]] = ""
    return texts
