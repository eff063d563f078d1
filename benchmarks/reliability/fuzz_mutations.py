"""How artifacts are changed: raw, or so that their checksums fit again; and what is asked of who reads them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save

from fuzzing import mutated, mutated_json
from specbeam.catalog.files import sha256
from specbeam.engines.bundle.facts import FileFacts
from specbeam.engines.bundle.sealed import Sealed, sealed

EXTREMES = (0, 1, -1, 2, 127, -(2**31), 2**31 - 1, 2**31, 2**62, -(2**63), 2**63 - 1)


DTYPES = ("<i4", "<i8", "<u4", "<u8", "<u1", "<i2", "<f4", "<f8", "<f2", ">i4", "|b1")


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """A loader, and its inputs: so many, from a seed."""

    name: str
    use: Callable[[bytes], object]
    inputs: Callable[[int, int], Iterator[bytes]]


def changed(array: np.ndarray, chance: random.Random) -> np.ndarray:
    """An array with entries of other values, in another order, of another length, shape or type."""
    array, kind = array.copy(), chance.randrange(10)
    with np.errstate(all="ignore"):
        if kind < 5 and array.size:
            for _ in range(chance.choice((1, 1, 2, 8))):
                at = chance.randrange(array.size)
                value = chance.choice((*EXTREMES, array.size, chance.choice(array.ravel().tolist()), at))
                if array.dtype.kind == "f":
                    array.flat[at] = chance.choice((np.nan, np.inf, -1.0, 1e38, float(value)))
                else:
                    array.flat[at] = np.array(int(value) % 2**64, np.uint64).astype(array.dtype)
        elif kind == 5 and array.size > 1:
            a, b = (chance.randrange(array.size) for _ in range(2))
            array.flat[[a, b]] = array.flat[[b, a]]
        elif kind == 6:
            array = array[: chance.randrange(len(array) + 1)]
        elif kind == 7:
            array = np.concatenate([array, array[: chance.randrange(len(array) + 1)]])
        elif kind == 8:
            array = array.astype(chance.choice(DTYPES))
        else:
            array = array.reshape(1, -1) if chance.random() < 0.3 else array[::-1]
    return np.ascontiguousarray(array)


def changed_tensors(arrays: Arrays, number: int, seed: int, metadata: Callable[[Arrays], dict[str, str]]) -> Any:
    """Safetensors files of changed arrays; now and then one is missing or has another's name."""
    chance = random.Random(seed)
    for _ in range(number):
        own = dict(arrays)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            name = chance.choice(list(own))
            own[name] = changed(own[name], chance) if own[name].ndim else own[name]
        if chance.random() < 0.05:
            own[chance.choice(("x", *arrays))] = own.pop(chance.choice(list(own)))
        own = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in own.items()}
        yield save(own, metadata(own))


def resealed(data: bytes, kind: type[Sealed]) -> bytes:
    """JSON with the checksum that fits its content, where it is such a structure at all."""
    try:
        return sealed(msgspec.json.decode(data, type=kind))
    except Exception:
        return data


def documents(seed_file: bytes, kind: type[Sealed] | None) -> Callable[[int, int], Iterator[bytes]]:
    def inputs(number: int, seed: int) -> Iterator[bytes]:
        for data in mutated_json([seed_file], number, seed=seed):
            yield data if kind is None else resealed(data, kind)

    return inputs


def raw_bytes(seed_file: bytes) -> Callable[[int, int], Iterator[bytes]]:
    return lambda number, seed: mutated([seed_file], number, seed=seed)


def facts_of(data: bytes, path: Path) -> FileFacts:
    path.write_bytes(data)
    return FileFacts(sha256=sha256(path), bytes=len(data))
