"""The draft while it learns: its own trees to learn from, and how often what the target needs is among them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..catalog.trie import ItemTrie
from ..engines.torch import TorchEngine
from ..runtime.types import Bool, Int64
from .lessons import Lessons
from .samples import Format
from .teacher import Searcher, truth_paths
from .trees import Trees


class Policy:
    """The draft as it is now, searching; nothing of it is kept between calls, because its weights change."""

    def __init__(self, model: PreTrainedModel, form: Format) -> None:
        self._form, self._trie = form, form.identifiers.trie
        self._engine = TorchEngine(model, self._trie.vocabulary, precision="fp32", threads=0)

    def searcher(self, width: int) -> Searcher:
        """Beam search by the draft as it is now."""
        return Searcher(self._engine, self._trie, self._form.spec.prefix_ids, width)

    def lesson(
        self, inputs: dict[str, Any], lessons: Lessons, teacher: Searcher, width: int
    ) -> dict[str, torch.Tensor]:
        """The same places with the draft's own trees, judged by the target (AtSpeed's draft-generated sequences)."""
        prompts, truth = inputs["prompts"], inputs["truth_leaf"]
        own = self.searcher(width).trees(prompts, truth_paths(self._trie, truth))
        batch = lessons.packed(prompts, teacher.at(prompts, own), truth)
        return vars(batch.to(inputs["input_ids"].device))


class AcceptanceCheck:
    """Validation: of the nodes that the target's beam search needs, how many a draft's first tree holds."""

    def __init__(self, policy: Policy, prompts: Sequence[Int64], needed: Trees, trie: ItemTrie, width: int) -> None:
        """needed: the target's trees of the prompts [P]; width: nodes drafted at every depth."""
        self._policy, self._prompts, self._needed, self._trie, self._width = policy, prompts, needed, trie, width

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """acceptance: share of needed nodes that are drafted; accepted_levels: depths, counted from the first,
        of which all are, mean a prompt (AtSpeed's accept steps of the first round).
        """
        searcher = self._policy.searcher(self._width)
        drafted = [searcher.trees(self._prompts[at : at + 32]) for at in range(0, len(self._prompts), 32)]
        owner, node, found = held(self._needed, drafted, len(self._trie.parent))
        depth = self._trie.depth[node]
        asked = (depth > 0) & (self._trie.child_count[node] > 0)
        levels = np.ones((len(self._prompts), self._trie.length), bool)
        np.logical_and.at(levels, (owner[asked], depth[asked] - 1), found[asked])
        leading = np.logical_and.accumulate(levels[:, : self._trie.length - 1], axis=1).sum(axis=1)
        return {"acceptance": float(found[asked].mean()), "accepted_levels": float(leading.mean())}


def held(needed: Trees, drafted: Sequence[Trees], stride: int) -> tuple[Int64, Int64, Bool]:
    """Prompt and node of every needed node, and whether the drafted trees (of the same prompts) hold it."""
    count = np.concatenate([trees.count for trees in drafted])
    keys = np.repeat(np.arange(len(count)), count) * stride + np.concatenate([trees.node for trees in drafted])
    owner, node = np.repeat(np.arange(len(needed)), needed.count), needed.node.astype(np.int64)
    return owner, node, np.isin(owner * stride + node, keys)
