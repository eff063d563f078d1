"""A training batch: prompts and their trees in one sequence each, under the runtime's own tree mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...catalog.trie import ItemTrie
from ...engines.attention_mask import MASK_TYPES, MaskType, dense_mask
from ...engines.reading import padded_prompts
from ...runtime.search.visibility import tree_visibility
from ...runtime.types import Int64
from .trees import Trees

UNSEEN = -1


@dataclass(frozen=True, eq=False)
class TreeBatch:
    """B prompts of P tokens with n tree nodes in all, packed behind their prompts; c children of the nodes.

    Where an encoder reads the prompts, the trees are packed behind the token that its decoder begins with. A
    *node* is evaluated: it is a query of the forward pass, and its children's log-probabilities are learned. A
    child may be a node itself.
    """

    input_ids: torch.Tensor  # [B, T]
    position_ids: torch.Tensor  # [B, T]
    attention_mask: torch.Tensor  # [B, 1, T, T], additive
    query: torch.Tensor  # [n] where each node's logits are, in the flattened [B * T]
    owner: torch.Tensor  # [n] prompt of each node
    depth: torch.Tensor  # [n] of each node; 0 is the root
    inner: torch.Tensor  # [n] what is drafted hangs on it: a child that is not a leaf
    place: torch.Tensor  # [n] the node among all children [c]; UNSEEN for a root
    parent: torch.Tensor  # [c] node of each child
    token: torch.Tensor  # [c] token id of each child
    needed: torch.Tensor  # [c] the child leads on: whoever drafts it would have the target evaluate it
    teacher: torch.Tensor  # [c] the target's log-probability of each child given its node
    beams: torch.Tensor  # [c] how many of the target's K best leaves lie at or below the child
    truth: torch.Tensor  # [c] whether the child is on the way to the item that really came next
    read_ids: torch.Tensor | None = None  # [B, P] what an encoder reads
    read_lengths: torch.Tensor | None = None  # [B]

    def to(self, device: torch.device | str) -> "TreeBatch":
        """The same on a device."""
        return TreeBatch(**{name: value.to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """What there is of it, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


class TreeBatcher:
    """Packs prompts and trees of one item trie."""

    def __init__(self, trie: ItemTrie, mask_type: MaskType, start: int | None = None) -> None:
        """start: the token that the model's decoder begins with, where an encoder reads the prompts."""
        self._trie, self._mask_type, self._start = trie, mask_type, start

    def __call__(self, prompts: Sequence[Int64], trees: Trees, truth: Int64) -> TreeBatch:
        """prompts: token ids [P] of each; truth [B]: the leaf that came next, -1 where none is known."""
        trie, stride = self._trie, len(self._trie.parent)
        begun, read = self._begun(prompts)
        begins, lengths = padded_prompts(begun)
        batch, longest = begins.shape
        node = trees.node.astype(np.int64)
        owner = np.repeat(np.arange(batch), trees.count)
        keys = owner * stride + node  # sorted: a prompt's nodes are
        rank = np.arange(len(node)) - (np.cumsum(trees.count) - trees.count)[owner]  # the root's is 0
        query = np.where(rank > 0, longest + rank - 1, lengths[owner] - 1)
        parent, child = trie.children(node)
        child_keys = owner[parent] * stride + child
        tokens = np.zeros((batch, longest + int(trees.count.max()) - 1), np.int64)
        positions = np.zeros_like(tokens)
        tokens[:, :longest] = begins
        positions[:, :longest] = np.arange(longest)
        below = rank > 0
        tokens[owner[below], query[below]] = trie.tokens(node[below])
        positions[owner[below], query[below]] = lengths[owner[below]] + trie.depth[node[below]] - 1
        paths = self._paths(keys, owner, node, query)
        visible = tree_visibility(
            lengths, 0, longest, tokens.shape[1] - longest, owner[below], query[below], paths[below]
        )
        mask = dense_mask(*visible, 0, self._mask_type)
        order = np.argsort(child_keys, kind="stable")
        place = _found(child_keys, order, keys)
        leaf_owner, leaf_rank = np.nonzero(trees.leaves >= 0)
        return TreeBatch(
            input_ids=torch.from_numpy(tokens),
            position_ids=torch.from_numpy(positions),
            attention_mask=_additive(mask),
            query=torch.from_numpy(owner * tokens.shape[1] + query),
            owner=torch.from_numpy(owner),
            depth=torch.from_numpy(trie.depth[node].astype(np.int64)),
            inner=torch.from_numpy(trie.leads_on(node)),
            place=torch.from_numpy(place),
            parent=torch.from_numpy(parent),
            token=torch.from_numpy(trie.tokens(child)),
            needed=torch.from_numpy(trie.child_count[child] > 0),
            teacher=torch.from_numpy(trees.logprob.astype(np.float32)),
            beams=torch.from_numpy(
                self._passes(child_keys, order, leaf_owner, trees.leaves[leaf_owner, leaf_rank].astype(np.int64))
            ).float(),
            truth=torch.from_numpy(self._passes(child_keys, order, np.flatnonzero(truth >= 0), truth[truth >= 0]) > 0),
            **read,
        )

    def _begun(self, prompts: Sequence[Int64]) -> tuple[Sequence[Int64], dict[str, torch.Tensor]]:
        """What the trees are packed behind [P] of each; and what an encoder reads, where there is one."""
        if self._start is None:
            return prompts, {}
        ids, lengths = padded_prompts(prompts)
        read = {"read_ids": torch.from_numpy(ids), "read_lengths": torch.from_numpy(lengths)}
        return [np.array([self._start])] * len(prompts), read

    def _paths(self, keys: Int64, owner: Int64, node: Int64, query: Int64) -> Int64:
        """[n, L] the slot of every ancestor and of the node itself, by depth; -1 where none."""
        paths = np.full((len(node), self._trie.length), -1)
        at, rows = node, np.arange(len(node))
        while len(rows):
            at, rows = at[at > 0], rows[at > 0]
            slot = query[np.searchsorted(keys, owner[rows] * len(self._trie.parent) + at)]
            paths[rows, self._trie.depth[at] - 1] = slot
            at = self._trie.parent[at].astype(np.int64)
        return paths

    def _passes(self, keys: Int64, order: Int64, owner: Int64, leaf: Int64) -> Int64:
        """[c] how many of the given leaves lie at or below each child."""
        passes = np.zeros(len(keys), np.int64)
        at = leaf
        for _ in range(self._trie.length):
            found = _found(keys, order, owner * len(self._trie.parent) + at)
            np.add.at(passes, found[(found >= 0) & (at > 0)], 1)
            at = np.maximum(self._trie.parent[at], 0).astype(np.int64)
        return passes


def _found(keys: Int64, order: Int64, wanted: Int64) -> Int64:
    """Where each wanted key is among `keys` (sorted by `order`), or -1."""
    sorted_keys = keys[order]
    at = np.minimum(np.searchsorted(sorted_keys, wanted), len(keys) - 1)
    return np.where(sorted_keys[at] == wanted, order[at], UNSEEN)


def _additive(mask: NDArray[np.generic]) -> torch.Tensor:
    """The mask as a tensor; NumPy holds bfloat16 as its bits."""
    if mask.dtype == MASK_TYPES["bf16"].dtype:
        return torch.from_numpy(mask.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(mask)


def path_scores(batch: TreeBatch, logprobs: torch.Tensor) -> torch.Tensor:
    """[c] summed log-probabilities of every child's path, from those given its node [c]."""
    scores = logprobs
    for _ in range(int(batch.depth.max())):
        above = batch.place[batch.parent]  # the child's own node, as a child
        scores = logprobs + torch.where(above >= 0, scores[above.clamp(min=0)], 0.0)
    return scores
