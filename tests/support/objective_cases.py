"""Trees and drafts that objectives are tried on."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from naive_trie import children, path
from scripted_search import ragged_catalog, random_catalog
from specbeam.align.teaching.batch import TreeBatch, TreeBatcher
from specbeam.align.teaching.lessons import shallow
from specbeam.align.teaching.searcher import Searcher, truth_paths
from specbeam.align.teaching.trees import Trees
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.attention_mask import MASK_TYPES
from specbeam.engines.torch import TorchEngine
from tiny_models import make_model

ROWS = 34  # of the models: tokens below 30, and some that are never used


WIDTH = 4  # K of the target's beam search


class Position(NamedTuple):
    """One position of one sequence: log-probabilities (over the whole vocabulary) of the tokens allowed there."""

    p: torch.Tensor  # the target's
    q: torch.Tensor  # the draft's
    taken: int  # which of them comes next in the sequence


@dataclass(frozen=True, eq=False)
class Case:
    """A pair, prompts, and the target's trees over them."""

    trie: ItemTrie
    target: PreTrainedModel
    draft: PreTrainedModel
    prompts: list[np.ndarray]
    trees: Trees
    truth: np.ndarray

    def batch(self, *, leaves: bool = True) -> TreeBatch:
        trees = self.trees if leaves else shallow(self.trees, self.trie)
        return TreeBatcher(self.trie, MASK_TYPES["fp32"])(self.prompts, trees, self.truth)

    def beams(self, *, leaves: bool = True) -> list[Position]:
        """Every position of the target's K final sequences of every prompt."""
        ends = [(prompt, int(leaf)) for prompt, row in enumerate(self.trees.leaves) for leaf in row if leaf >= 0]
        return [position for end in ends for position in self.sequence(*end, leaves=leaves)]

    def truths(self) -> list[Position]:
        """Every position of the sequences that really came next."""
        ends = [(prompt, int(leaf)) for prompt, leaf in enumerate(self.truth) if leaf >= 0]
        return [position for end in ends for position in self.sequence(*end)]

    def sequence(self, prompt: int, end: int, *, leaves: bool = True) -> list[Position]:
        """The positions of one sequence, each model run once over prompt and tokens."""
        nodes = path(self.trie, end)
        tokens = [*self.prompts[prompt].tolist(), *self.trie.tokens(np.array(nodes, np.int64)).tolist()]
        with torch.no_grad():
            p = self.target(torch.tensor([tokens])).logits[0].log_softmax(-1)
        q = self.draft(torch.tensor([tokens])).logits[0].log_softmax(-1)
        positions = []
        for depth, node in enumerate([0, *nodes[:-1]]):
            below = children(self.trie, node)
            if leaves or node == 0 or any(children(self.trie, child) for child in below):
                at, columns = len(self.prompts[prompt]) - 1 + depth, self.trie.tokens(np.array(below))
                positions.append(Position(p[at, columns], q[at, columns], below.index(nodes[depth])))
        return positions


def make_case(ragged: bool, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    trie = ItemTrie.build((ragged_catalog if ragged else random_catalog)(rng, 40, 3, 5))
    target, draft = make_model(rows=ROWS), make_model(rows=ROWS, seed=1, num_hidden_layers=1)
    prompts = [rng.integers(3, 30, length).astype(np.int64) for length in (1, 4, 7)]
    truth = np.append(rng.choice(np.flatnonzero(trie.child_count == 0), 2), -1)
    engine = TorchEngine(target, trie.vocabulary, precision="fp32", threads=0)
    trees = Searcher(engine, trie, [], WIDTH).trees(prompts, truth_paths(trie, truth))
    draft.requires_grad_(True)
    return Case(trie, make_model(rows=ROWS), draft, prompts, trees, truth)
