"""The draft while it learns: its own trees to learn from, and how often what the target needs is among them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..catalog.trie import ItemTrie
from ..engines.torch_encoder_decoder import torch_engine
from ..runtime.drafting.drafter import BeamDrafter
from ..runtime.drafting.guesses import ModelGuesses
from ..runtime.search.evaluator import TreeEvaluator
from ..runtime.search.nodes import EvaluatedNodes
from ..runtime.search.prefix import SharedPrefix
from ..runtime.search.scoring import Scoring
from ..runtime.search.trie_view import TrieView
from ..runtime.session import beginning
from ..runtime.stats import DecodeStats
from ..runtime.types import Int64, NodeList
from .teaching.lessons import Lessons
from .teaching.searcher import BATCH, Searcher, truth_paths
from .teaching.trees import Trees
from .training.samples import Format


class Policy:
    """The draft as it is now, searching; nothing of it is kept between calls, because its weights change."""

    def __init__(self, model: PreTrainedModel, form: Format) -> None:
        self._form, self._trie = form, form.identifiers.trie
        self._engine = torch_engine(model, self._trie.vocabulary, precision="fp32", threads=0)

    @property
    def start(self) -> int | None:
        """The token that its decoder begins with, where an encoder reads the prompts."""
        return self._engine.start

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
        return batch.to(inputs["input_ids"].device).tensors()

    def drafted(self, prompts: Sequence[Int64], width: int) -> NodeList:
        """What the runtime's first round drafts with it for each prompt [P]: `width` nodes at every depth."""
        prefix = SharedPrefix(self._engine, np.array(self._form.spec.prefix_ids, np.int64))
        parts = []
        for first in range(0, len(prompts), BATCH):
            nodes = self._first_round(prefix, prompts[first : first + BATCH], width)
            parts.append(NodeList(first + nodes.request, nodes.node))
        return NodeList(np.concatenate([part.request for part in parts]), np.concatenate([part.node for part in parts]))

    def _first_round(self, prefix: SharedPrefix, prompts: Sequence[Int64], width: int) -> NodeList:
        view, batch = TrieView(self._trie), len(prompts)
        own, targets = (EvaluatedNodes(view, Scoring("full")) for _ in range(2))
        evaluator = TreeEvaluator(prefix, view, own, prompts, DecodeStats(self._trie.length), "draft")
        frontier = beginning(np.full(batch, width), np.zeros(batch))
        widths = np.full((batch, self._trie.length - 1), width)
        return BeamDrafter("strict", ModelGuesses(evaluator), view).propose(frontier, targets, widths).nodes


class AcceptanceCheck:
    """Validation: of the nodes that the target's beam search needs, how many a draft's first tree holds."""

    def __init__(self, policy: Policy, prompts: Sequence[Int64], needed: Trees, trie: ItemTrie, width: int) -> None:
        """needed: the target's trees of the prompts [P]; width: nodes drafted at every depth."""
        self._policy, self._prompts, self._needed, self._trie, self._width = policy, prompts, needed, trie, width

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """acceptance: share of needed nodes that are drafted; accepted_levels: depths, counted from the first,
        of which all are, mean a prompt (AtSpeed's accept steps of the first round); agreement: accepted levels,
        ties broken by acceptance.
        """
        needed, trie, stride = self._needed, self._trie, len(self._trie.parent)
        drafted = self._policy.drafted(self._prompts, self._width)
        owner, node = np.repeat(np.arange(len(needed)), needed.count), needed.node.astype(np.int64)
        found = np.isin(owner * stride + node, drafted.request * stride + drafted.node)
        asked = node > 0  # the root is everybody's
        levels = np.ones((len(self._prompts), trie.length), bool)
        np.logical_and.at(levels, (owner[asked], trie.depth[node[asked]] - 1), found[asked])
        leading = np.logical_and.accumulate(levels[:, : trie.length - 1], axis=1).sum(axis=1)
        share = float(found[asked].mean()) if asked.any() else 1.0  # identifiers of one token: nothing is needed
        levels_found = float(leading.mean())
        return {"acceptance": share, "accepted_levels": levels_found, "agreement": levels_found + share / 1000}
