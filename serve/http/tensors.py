"""Tensors of the Open Inference Protocol v2, as JSON and as the binary extension has them."""

from collections.abc import Sequence
from math import prod
from struct import pack, unpack_from
from typing import Annotated, Any

import msgspec
import numpy as np

from ..protocol.refusals import Refused
from ..protocol.tensors import Scalar, Tensor

DATATYPES = {"BYTES": np.dtype(object), "INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}
DEEPEST = 8  # lists in lists of a tensor's data
Size = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class InputTensor(msgspec.Struct, frozen=True):
    """One input; keys that are not known are left aside, as the protocol's extensions want it."""

    name: str
    shape: Annotated[list[Size], msgspec.Meta(min_length=1, max_length=DEEPEST)]
    datatype: str
    data: list[Any] | None = None  # flat or nested, row by row; None: it is in the binary part
    parameters: dict[str, Scalar] = {}


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | None = None
    parameters: dict[str, Scalar] | None = None


def read_tensors(inputs: Sequence[InputTensor], binary: bytes, most: int) -> dict[str, Tensor]:
    """Inputs by name, in their shapes; binary: what follows the JSON; most: elements of one. Raises `Refused`."""
    found: dict[str, Tensor] = {}
    start = 0
    for each in inputs:
        field = f"inputs.{each.name[:100]}"
        if each.datatype not in DATATYPES:
            raise Refused(400, f"got the datatype {each.datatype[:40]!r}; expected BYTES or INT64.", field=field)
        if each.name in found:
            raise Refused(400, "the input is given twice.", field=field)
        count = prod(each.shape)
        if count > most:
            raise Refused(400, f"the input has {count} elements; this server takes {most}.", field=field)
        size = each.parameters.get("binary_data_size")
        if size is None:
            values = _from_list(each, field)
        else:
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary) - start:
                raise Refused(400, f"binary_data_size is {size}, beyond what was sent.", field=field)
            values = _from_bytes(each.datatype, binary[start : start + size], field)
            start += size
        if len(values) != count:
            raise Refused(400, f"got {len(values)} elements for the shape {each.shape}.", field=field)
        found[each.name] = values.reshape(each.shape)
    if start != len(binary):
        raise Refused(400, f"{len(binary) - start} bytes follow the JSON that belong to no input.", field="inputs")
    return found


def _from_list(each: InputTensor, field: str) -> Tensor:
    if each.data is None:
        raise Refused(400, "the input has neither data nor binary_data_size.", field=field)
    flat: list[Any] = each.data
    for _ in range(DEEPEST):
        if not any(isinstance(value, list) for value in flat):
            break
        flat = [leaf for value in flat for leaf in (value if isinstance(value, list) else [value])]
    kind = {"BYTES": str, "INT64": int, "FP32": (int, float)}[each.datatype]
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in flat):  # type: ignore[arg-type]
        raise Refused(400, f"the data holds what is no {each.datatype}.", field=field)
    try:
        return np.array(flat, DATATYPES[each.datatype])
    except (OverflowError, ValueError):
        raise Refused(400, f"the data holds a number that is no {each.datatype}.", field=field) from None


def _from_bytes(datatype: str, raw: bytes, field: str) -> Tensor:
    kind = DATATYPES[datatype]
    if datatype == "BYTES":
        return np.array(_texts(raw, field), kind)
    if len(raw) % kind.itemsize:
        raise Refused(400, f"{len(raw)} bytes are no whole number of {datatype}.", field=field)
    return np.frombuffer(raw, kind)


def _texts(raw: bytes, field: str) -> list[str]:
    """Each behind its length, 4 bytes, little-endian."""
    texts, start = [], 0
    try:
        while start < len(raw):
            (size,) = unpack_from("<I", raw, start)
            start += 4 + size
            if start > len(raw):
                raise ValueError("the last text is cut")
            texts.append(raw[start - size : start].decode())
    except Exception as error:
        raise Refused(400, f"the bytes are no texts behind their lengths, in UTF-8: {error}.", field=field) from None
    return texts


def written(name: str, values: Tensor, *, binary: bool) -> tuple[OutputTensor, bytes]:
    """An output, and its bytes where it is to be binary."""
    datatype = next(word for word, kind in DATATYPES.items() if kind == values.dtype)
    if not binary:
        return OutputTensor(name, datatype, values.shape, values.ravel().tolist()), b""
    raw = values.tobytes()
    if datatype == "BYTES":
        raw = b"".join(pack("<I", len(text)) + text for text in (value.encode() for value in values.ravel()))
    return OutputTensor(name, datatype, values.shape, parameters={"binary_data_size": len(raw)}), raw
