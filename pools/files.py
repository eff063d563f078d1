"""A pool on disk: a directory of arrays, memory-mapped when it is opened, and pool.json, which says what they are."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..catalog.bounds import DAMAGED, Size, is_inside, leads_out
from ..catalog.errors import BundleError, PoolError
from ..catalog.files import Frozen, sha256
from ..engines.bundle.sealed import Sealed, read_sealed, sealed

POOL_FILE = "pool.json"
POOL_SCHEMA = 1
Array = NDArray[Any]


class ArrayFacts(Frozen, frozen=True):
    """One array of a pool, in the file of its name with .npy behind it."""

    dtype: str  # as NumPy writes it, e.g. "<i4"
    shape: tuple[Size, ...]
    bytes: Size  # of the file
    sha256: str


class PoolFacts(Sealed, frozen=True, kw_only=True):
    """pool.json, as far as pools of all kinds have it in common."""

    schema_version: int = POOL_SCHEMA
    specbeam_version: str = __version__
    kind: str
    arrays: dict[str, ArrayFacts]

    def __post_init__(self) -> None:
        for name in self.arrays:
            if "/" in name or not is_inside(f"{name}.npy"):
                raise ValueError(f"got an array named {name!r}; expected the name of a file in the pool")


T = TypeVar("T", bound=PoolFacts)


class _Kind(msgspec.Struct):
    kind: str = ""


class _Grouped(msgspec.Struct):
    groups: Any = None


def build_command(pool: Path, sources: str) -> str:
    """The command that builds a pool, or builds it again; what only its owner has is in capitals.

    sources: what it is built from, as options.
    """
    file, grouped = pool / POOL_FILE, False
    with suppress(OSError, *DAMAGED):
        grouped = bool(msgspec.json.decode(file.read_bytes(), type=_Grouped).groups)
    words = f"specbeam build-pool {sources}{' --groups GROUPS' * grouped} --output {shlex.quote(str(pool))}"
    return f"{words} --overwrite" if file.is_file() else words


def write_arrays(folder: Path, arrays: Mapping[str, Array]) -> dict[str, ArrayFacts]:
    """Write every array to its file, and say what pool.json is to hold of them."""
    facts = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        facts[name] = ArrayFacts(
            dtype=array.dtype.str, shape=array.shape, bytes=path.stat().st_size, sha256=sha256(path)
        )
    return facts


def write_facts(folder: Path, facts: PoolFacts) -> None:
    """Write pool.json, the last file of a pool."""
    (folder / POOL_FILE).write_bytes(sealed(facts))


def read_facts(path: Path, kind: str, facts: type[T], remedy: str) -> T:
    """A pool's pool.json. Raises `PoolError` where there is none, where it is damaged, and for another kind of pool.

    remedy: the command that builds such a pool.
    """
    file = path / POOL_FILE
    if not file.is_file():
        raise PoolError(f"{path} is not a pool: it has no {POOL_FILE}. Build one with: {remedy}")
    if (got := pool_kind(path) or kind) != kind:
        raise PoolError(f"{path} is a pool of kind {got!r}; expected {kind!r}. Build one with: {remedy}")
    try:
        return read_sealed(file, facts, remedy, POOL_SCHEMA)
    except BundleError as error:
        raise PoolError(str(error)) from error


def pool_kind(path: Path) -> str | None:
    """What kind of pool a folder with a pool.json says it is; None: that is damaged, as what reads it whole tells."""
    try:
        return msgspec.json.decode((path / POOL_FILE).read_bytes(), type=_Kind).kind
    except DAMAGED:
        return None


def check_types(folder: Path, facts: Mapping[str, ArrayFacts], types: Mapping[str, str], remedy: str) -> None:
    """Raise `PoolError` unless a pool has the arrays of `types` (as NumPy names them), of one axis each."""
    got = {
        name: array.dtype if len(array.shape) == 1 else f"{array.dtype} {array.shape}" for name, array in facts.items()
    }
    if got != types:
        named, expected = (", ".join(f"{name} ({kind})" for name, kind in sorted(of.items())) for of in (got, types))
        raise PoolError(f"{folder / POOL_FILE} names the arrays {named}; expected {expected}. {_again(remedy)}")


def open_arrays(folder: Path, facts: Mapping[str, ArrayFacts], remedy: str) -> dict[str, Array]:
    """A pool's arrays, memory-mapped and read-only, once size, type, shape and SHA-256 are what pool.json says.

    Raises `PoolError`. Hashing costs about 0.1 s for 100 MB.
    """
    return {name: _open(folder / f"{name}.npy", expected, remedy) for name, expected in facts.items()}


def no_pool(folder: Path, kind: str, fault: str, remedy: str) -> PoolError:
    """The error for arrays that contradict pool.json, or one another."""
    return PoolError(f"the arrays of {folder} make no pool of {kind}: {fault}. {_again(remedy)}")


def spans_all(starts: Array, parts: int, size: int) -> bool:
    """Whether `starts` [parts + 1] cuts `size` things into spans, one after another."""
    return (
        len(starts) == parts + 1 and starts[0] == 0 and starts[-1] == size and bool((starts[1:] >= starts[:-1]).all())
    )


def within(numbers: Array, end: int) -> bool:
    """Whether all numbers are 0 to `end` - 1."""
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < end)


def _again(remedy: str) -> str:
    return f"Build the pool again with: {remedy}"


def _open(path: Path, expected: ArrayFacts, remedy: str) -> Array:
    again = _again(remedy)
    if leads_out(path, path.parent):
        raise PoolError(f"{path} is a link out of the pool, which is not followed. {again}")
    if not path.is_file():
        raise PoolError(f"{path} is missing; pool.json names it. {again}")
    if path.stat().st_size != expected.bytes:
        raise PoolError(f"{path} has {path.stat().st_size} bytes; pool.json says {expected.bytes}. {again}")
    if sha256(path) != expected.sha256:
        raise PoolError(f"{path} is damaged: its SHA-256 is not the one in pool.json. {again}")
    try:
        array: Array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # plain: indexing is faster
    except Exception as error:  # NumPy takes headers apart as Python source, and raises what that raises
        raise PoolError(f"{path} is not an array: {error}. {again}") from error
    if (array.dtype.str, array.shape) != (expected.dtype, expected.shape):
        raise PoolError(
            f"{path} holds {array.dtype.str} of shape {array.shape}; pool.json says {expected.dtype} of shape "
            f"{expected.shape}. {again}"
        )
    return array
