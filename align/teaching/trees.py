"""Beam trees: what a model thinks of the nodes of a search, for many prompts, flat; and how they lie on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ...catalog.bounds import Positive
from ...catalog.errors import SpecBeamError
from ...catalog.files import Frozen, whole_file
from ...catalog.trie import ItemTrie, spans
from ...runtime.types import Int64

SETTINGS = "teacher.json"
PART = "part-{:05d}.safetensors"
LOWEST = float(np.finfo(np.float16).min)  # what is less likely is no likelier than that
SEAL = "seal"  # what a part was made of, and a digest of its content


@dataclass(frozen=True, eq=False)
class Trees:
    """Trees of B prompts: nodes of the item trie, each with the log-probabilities of all its children.

    A prompt's nodes are sorted by their number in the trie: the root first, parents before children.
    """

    count: Int64  # [B] nodes of each prompt
    node: NDArray[np.int32]  # [n] trie nodes
    logprob: NDArray[np.floating]  # [c] of the children of every node in turn, as `ItemTrie.children` lists them
    leaves: NDArray[np.int32]  # [B, K] the best leaves that the model's beam search finds, best first; -1 where fewer

    def __len__(self) -> int:
        return len(self.count)

    def taken(self, which: Int64, trie: ItemTrie) -> "Trees":
        """The trees of some prompts, in the order of `which`."""
        start = np.cumsum(self.count) - self.count
        _, nodes, _ = spans(start[which], self.count[which])
        children = trie.child_count[self.node].astype(np.int64)
        first = np.cumsum(children) - children
        _, kept, _ = spans(first[nodes], children[nodes])
        return Trees(self.count[which], self.node[nodes], self.logprob[kept], self.leaves[which])


class TeacherSettings(Frozen, frozen=True, kw_only=True):
    """What a folder of trees was made of; trees made otherwise are not mixed with them."""

    fingerprint: str  # of the target's weights, the identifiers, the prompts
    width: Positive  # K of the beam search
    samples: Positive  # how many prompts
    part: Positive  # prompts a file


class TreeStore:
    """Trees in files of `part` prompts each, written one after another, each whole or absent.

    Only the children that the trie allows are stored, their log-probabilities in half precision: 4.5 kB a
    prompt at K = 20 on a catalog of 12,000 items.
    """

    def __init__(self, folder: Path, trie: ItemTrie, settings: TeacherSettings) -> None:
        self.folder, self._trie, self.settings = folder, trie, settings
        self._of = blake2b(msgspec.json.encode(settings), digest_size=8).hexdigest()
        self._open: dict[int, tuple[Any, Int64, Int64]] = {}

    @property
    def parts(self) -> int:
        """How many files make it whole."""
        return -(-self.settings.samples // self.settings.part)

    def missing(self) -> list[int]:
        """Parts that are not there yet, are damaged, or were made of something else."""
        return [part for part in range(self.parts) if not self._sound(part)]

    def span(self, part: int) -> range:
        """The prompts of a part."""
        first = part * self.settings.part
        return range(first, min(first + self.settings.part, self.settings.samples))

    def write(self, part: int, trees: Trees) -> None:
        """Write one part, whole or not at all."""
        arrays: dict[str, NDArray[np.generic]] = {
            "count": trees.count.astype(np.int32), "node": trees.node.astype(np.int32),
            "logprob": trees.logprob.clip(LOWEST).astype(np.float16), "leaves": trees.leaves.astype(np.int32),
        }  # fmt: skip
        content = save(arrays, {SEAL: f"{self._of} {_digest(arrays)}"})  # one key: their order would vary
        with whole_file(self._path(part), replace=True) as file:
            file.write(content)
        self._open.pop(part, None)  # what was read of it before

    def read(self, samples: Sequence[int]) -> Trees:
        """The trees of some prompts, in the order given; log-probabilities in float32.

        Raises `SpecBeamError` where a part is damaged or missing.
        """
        read = [self._one(*divmod(sample, self.settings.part)) for sample in samples]
        count, node, logprob, leaves = zip(*read, strict=True)
        return Trees(
            np.array(count), np.concatenate(node), np.concatenate(logprob).astype(np.float32), np.stack(leaves)
        )

    def bytes(self) -> int:
        """Size on disk of what is there."""
        return sum(path.stat().st_size for path in self.folder.glob("part-*.safetensors"))

    def _sound(self, part: int) -> bool:
        """Whether a part is there, made of the same settings, and as it was written."""
        try:
            with safe_open(self._path(part), framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                whole = (file.metadata() or {}).get(SEAL) == f"{self._of} {_digest(arrays)}"
        except (SafetensorError, OSError, ValueError, SystemError, TypeError, KeyError, OverflowError, MemoryError):
            return False
        return whole and _consistent(arrays, len(self.span(part)), self._trie)

    def _path(self, part: int) -> Path:
        return self.folder / PART.format(part)

    def _one(self, part: int, row: int) -> tuple[int, NDArray[np.int32], NDArray[np.float16], NDArray[np.int32]]:
        if part not in self._open:
            self._open[part] = self._opened(part)
        file, first_node, first_child = self._open[part]
        nodes = slice(int(first_node[row]), int(first_node[row + 1]))
        children = slice(int(first_child[nodes.start]), int(first_child[nodes.stop]))
        get = file.get_slice
        return nodes.stop - nodes.start, get("node")[nodes], get("logprob")[children], get("leaves")[row]

    def _opened(self, part: int) -> tuple[Any, Int64, Int64]:
        """A part's file, where each prompt's nodes begin in it, and where each node's children do."""
        path = self._path(part)
        try:
            file: Any = safe_open(path, framework="numpy")
            count, node = (file.get_slice(name)[:] for name in ("count", "node"))
        except (SafetensorError, OSError, ValueError) as error:
            raise SpecBeamError(f"{path} cannot be read: {error}. Delete it and run again: it is made anew.") from None
        return file, _starts(count), _starts(self._trie.child_count[node])


def joined(trees: Sequence[Trees]) -> Trees:
    """Trees of several batches as one."""
    width = max(part.leaves.shape[1] for part in trees)
    leaves = [np.pad(t.leaves, ((0, 0), (0, width - t.leaves.shape[1])), constant_values=-1) for t in trees]
    return Trees(
        np.concatenate([part.count for part in trees]), np.concatenate([part.node for part in trees]),
        np.concatenate([part.logprob for part in trees]), np.concatenate(leaves),
    )  # fmt: skip


def _consistent(arrays: Mapping[str, NDArray[Any]], prompts: int, trie: ItemTrie) -> bool:
    """Whether a part's arrays are trees of so many prompts: as many of all, of this trie, sorted, and numbers."""
    kinds = {"count": ("<i4", 1), "node": ("<i4", 1), "logprob": ("<f2", 1), "leaves": ("<i4", 2)}
    if {name: (array.dtype.str, array.ndim) for name, array in arrays.items()} != kinds:
        return False
    count, node, logprob, leaves = (arrays[name] for name in kinds)
    if len(count) != prompts or len(leaves) != prompts or count.min() < 1 or count.sum(dtype=np.int64) != len(node):
        return False
    if min(node.min(), leaves.min(initial=0) + 1) < 0 or max(node.max(), leaves.max(initial=0)) >= len(trie.parent):
        return False
    first = np.zeros(len(node), bool)
    first[_starts(count)[:-1]] = True
    ordered = (node == 0) == first
    ordered[1:] &= first[1:] | (node[1:] > node[:-1])
    of_leaves = trie.child_count[leaves[leaves >= 0]] == 0
    children = trie.child_count[node].sum(dtype=np.int64)
    return bool(ordered.all() and of_leaves.all() and children == len(logprob) and not np.isnan(logprob).any())


def _digest(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """Tells damaged arrays from whole ones."""
    hashed = blake2b(digest_size=8)
    for name in sorted(arrays):
        hashed.update(name.encode() + arrays[name].tobytes())
    return hashed.hexdigest()


def _starts(count: NDArray[np.integer]) -> Int64:
    """[n + 1] where spans of these lengths begin, one after another."""
    return np.concatenate(([0], np.cumsum(count, dtype=np.int64)))
