"""The tensors of an inference by the Open Inference Protocol v2: names, types and shapes."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from .refusals import Refused

Tensor = NDArray[Any]
Scalar = str | int | float | bool


class TensorKind(NamedTuple):
    """One input or output."""

    datatype: str
    shape: tuple[int, ...]  # -1: any size


INPUTS = {
    "items": TensorKind("BYTES", (-1, -1)),  # [B, N], or instead of it:
    "tokens": TensorKind("INT64", (-1, -1)),  # [B, P] and
    "lengths": TensorKind("INT64", (-1,)),  # [B]
    "users": TensorKind("BYTES", (-1,)),  # [B], if wanted; and
    "k": TensorKind("INT64", (1,)),  # [1]
}
OUTPUTS = {
    "items": TensorKind("BYTES", (-1, -1)),  # all of them [B, K]
    "scores": TensorKind("FP32", (-1, -1)),
    "positions": TensorKind("INT64", (-1, -1)),
    "titles": TensorKind("BYTES", (-1, -1)),
}


def check_input(name: str, values: Tensor) -> None:
    """Raise `Refused` for what is no input, of another type, or of another rank. Texts are arrays of objects."""
    if name not in INPUTS:
        raise Refused(400, f"there is no such input; expected of: {', '.join(INPUTS)}.", field=f"inputs.{name[:100]}")
    kind = INPUTS[name]
    wrong_type = (values.dtype == object) != (kind.datatype == "BYTES") or values.dtype.kind == "f"
    if wrong_type or values.ndim != len(kind.shape):
        raise Refused(400, f"expected {kind.datatype} with {len(kind.shape)} dimensions.", field=f"inputs.{name}")
