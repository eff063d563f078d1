"""What an alignment learns from: places in histories, the target's trees over them, and batches of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from ...catalog.prompts.encoder import PromptEncoder
from ...catalog.trie import ItemTrie
from ...engines.attention_mask import MASK_TYPES
from ...runtime.types import Int64
from ..training.order import Samples
from ..training.samples import Format
from .batch import TreeBatch, TreeBatcher
from .trees import Trees, TreeStore


@dataclass(frozen=True, eq=False)
class Places:
    """Places in histories: everything before a place is a prompt, the item there is what came next."""

    histories: Sequence[Int64]  # catalog positions, oldest first
    user: Int64  # [N] which history
    place: Int64  # [N] at least 1

    @classmethod
    def choose(cls, histories: Sequence[Int64], windows: int, most: int | None, seed: int) -> "Places":
        """The last place of every history and `windows` - 1 others of it at random, all in random order; the
        first `most` of them.
        """
        rng = np.random.default_rng([seed, 2])
        users, places = [], []
        for user, history in enumerate(histories):
            last = len(history) - 1
            if last < 1:
                continue
            chosen = [last, *(1 + rng.permutation(last - 1)[: windows - 1])]
            users.extend([user] * len(chosen))
            places.extend(chosen)
        order = rng.permutation(len(users))[:most]
        return cls(histories, np.array(users, np.int64)[order], np.array(places, np.int64)[order])

    def __len__(self) -> int:
        return len(self.user)

    def history(self, sample: int) -> Int64:
        """The items before a place."""
        before: Int64 = self.histories[self.user[sample]][: self.place[sample]]
        return before

    def next_items(self, samples: Sequence[int]) -> Int64:
        """[n] the items at some places."""
        return np.array([self.histories[self.user[i]][self.place[i]] for i in samples], np.int64)

    def digest(self) -> str:
        """Tells other places from these."""
        hashed = blake2b(self.user.tobytes() + self.place.tobytes(), digest_size=8)
        for history in self.histories:
            hashed.update(history.tobytes() + b"|")
        return hashed.hexdigest()


class Lessons(Samples):
    """Places with their trees; `collate` makes the inputs of one forward pass of them."""

    def __init__(
        self, places: Places, form: Format, prompts: PromptEncoder, store: TreeStore, *, leaves: bool,
        start: int | None = None,
    ) -> None:  # fmt: skip
        """leaves: whether nodes with nothing but leaves below belong to it, which no draft is ever asked for.

        start: the token that the draft's decoder begins with, where an encoder reads the prompts.
        """
        self._places, self._prompts, self._store, self._leaves = places, prompts, store, leaves
        self._trie = form.identifiers.trie
        self.batcher = TreeBatcher(self._trie, MASK_TYPES["fp32"], start)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> int:
        return index

    def lengths(self) -> Int64:
        longest: Int64 = np.minimum(self._places.place, self._prompts.spec.history_length)
        return longest

    def collate(self, samples: Sequence[int]) -> dict[str, Any]:
        """The fields of a `TreeBatch`, and `prompts` and `truth` to make another of the same places."""
        prompts = [self._prompts.encode(self._places.history(i)).ids for i in samples]
        truth = self._trie.leaf_of[self._places.next_items(samples)].astype(np.int64)
        packed = self.packed(prompts, self._store.read(samples), truth)
        return {**packed.tensors(), "prompts": prompts, "truth_leaf": truth}

    def packed(self, prompts: Sequence[Int64], trees: Trees, truth: Int64) -> TreeBatch:
        """Prompts and trees as one batch."""
        return self.batcher(prompts, trees if self._leaves else shallow(trees, self._trie), truth)


def batch_of(inputs: dict[str, Any]) -> TreeBatch:
    """The `TreeBatch` in what `collate` made."""
    return TreeBatch(**{name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)})


def shallow(trees: Trees, trie: ItemTrie) -> Trees:
    """Trees without the nodes below which there are leaves only; the root stays."""
    kept = trie.leads_on(trees.node) | (trees.node == 0)
    owner = np.repeat(np.arange(len(trees)), trees.count)
    children = np.repeat(kept, trie.child_count[trees.node])
    count = np.bincount(owner[kept], minlength=len(trees))
    return Trees(count, trees.node[kept], trees.logprob[children], trees.leaves)
