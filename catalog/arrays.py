"""Arrays in a file (safetensors), written without a copy of them and mapped into memory, where they are read as wanted.

The package `safetensors` copies all arrays into bytes to write them, and into memory to read them: too much for a
catalog of ten million items. What is written is read by it, and the other way round.
"""

import mmap
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .bounds import DAMAGED
from .errors import CatalogError

Array = NDArray[Any]
TYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "U32": np.dtype("<u4"), "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}  # fmt: skip
NAMES = {kind: name for name, kind in TYPES.items()}
LONGEST_HEADER = 1 << 20  # bytes; ours take some hundred
ALIGNED = 8
WRITTEN = 16 << 20  # bytes at a time


class _Stored(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def write_arrays(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write arrays under their names; the widest numbers come first, so that all are aligned."""
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, at = {}, 0
    for name in order:
        array = arrays[name]
        header[name] = _Stored(NAMES[array.dtype], array.shape, (at, at + array.nbytes))
        at += array.nbytes
    head = msgspec.json.encode(header)
    head += b" " * (-len(head) % ALIGNED)
    file.write(len(head).to_bytes(8, "little") + head)
    for name in order:
        raw = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data
        for start in range(0, len(raw), WRITTEN):
            file.write(raw[start : start + WRITTEN])


def map_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file, read-only. Raises `CatalogError`, without the file's name, where it is no such file.

    They stay what they are when the file is removed or another one takes its name; who writes into the file itself
    changes them.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise CatalogError(f"it cannot be read: {error}.") from None
    length = int.from_bytes(data[:8], "little")
    first = 8 + length
    if length > min(LONGEST_HEADER, len(data)) or first > len(data):
        raise CatalogError("it cannot be read: it does not begin as a file of arrays (safetensors) does.")
    try:
        header = msgspec.json.decode(data[8:first], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        stored = {name: msgspec.json.decode(entry, type=_Stored) for name, entry in header.items()}
    except DAMAGED as error:
        raise CatalogError(f"it cannot be read: {error}.") from None
    return {name: _mapped(data, name, entry, first) for name, entry in stored.items()}


def _mapped(data: mmap.mmap, name: str, entry: _Stored, first: int) -> Array:
    kind, (begin, end) = TYPES.get(entry.dtype), entry.data_offsets
    if kind is None:
        raise CatalogError(f"{name} has numbers of the kind {entry.dtype}; expected one of {', '.join(TYPES)}.")
    count = prod(entry.shape)
    if min(entry.shape, default=0) < 0 or not 0 <= begin <= end <= len(data) - first:
        raise CatalogError(f"{name} is said to lie outside the file.")
    if end - begin != count * kind.itemsize:
        raise CatalogError(f"{name} has {end - begin} bytes, expected {count * kind.itemsize}.")
    flat = np.frombuffer(data, kind, count, first + begin) if count else np.empty(0, kind)
    return flat.reshape(entry.shape)


def kinds(arrays: Mapping[str, Array]) -> dict[str, str]:
    """Every array's kind of numbers, as the file says it."""
    return {name: NAMES[array.dtype] for name, array in arrays.items()}
