"""What gpu.py measures with: Llama-shaped random models, a random catalog, and a drafter whose luck is set."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Engine
from specbeam.engines.bundle.facts import ModelFacts
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.device import GATHER
from specbeam.engines.torch import DTYPES, TorchEngine
from specbeam.runtime.drafting.drafter import BeamDrafter, Drafter, NoDrafter
from specbeam.runtime.drafting.guesses import ModelGuesses
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.evaluator import TreeEvaluator
from specbeam.runtime.search.nodes import EvaluatedNodes
from specbeam.runtime.search.prefix import SharedPrefix
from specbeam.runtime.search.scoring import Scoring
from specbeam.runtime.search.trie_view import TrieView
from specbeam.runtime.search.verify import StrictVerifier
from specbeam.runtime.session import Session
from specbeam.runtime.stats import DecodeStats
from specbeam.runtime.types import Bool, DraftShape, DraftTree, Frontier, Int64, NodeList, Request, Round

LENGTH = 4  # tokens of an identifier
SHARPNESS = 4  # times the head's random weights: gaps between scores that half precision can tell
# hidden, intermediate, layers, heads, KV heads, words: the shapes of Llama 7B, of 3.2 1B (a smaller vocabulary), of
# llama-68m, and of what a CPU runs in no time
SHAPES = {
    "7b": (4096, 11008, 32, 32, 32, 32000),
    "1b": (2048, 8192, 16, 32, 8, 32000),
    "68m": (768, 3072, 2, 12, 12, 32000),
    "tiny": (64, 128, 2, 4, 2, 500),
    "tiny-draft": (32, 64, 1, 4, 2, 500),
}


@dataclass(frozen=True)
class Shop:
    """A random catalog, whose identifiers begin behind a model's words, and random prompts."""

    codes: int  # tokens of each level
    items: int
    prompt: int  # tokens
    words: int

    def trie(self) -> ItemTrie:
        rng = np.random.default_rng(0)
        rows = self.words + np.arange(LENGTH) * self.codes + rng.integers(0, self.codes, (self.items, LENGTH))
        return ItemTrie.build(rows)

    def prompts(self, count: int, seed: int = 1) -> list[Int64]:
        return list(np.random.default_rng(seed).integers(0, self.words, (count, self.prompt)))


def words_of(name: str) -> int:
    """Tokens of a model that are no identifier's."""
    return SHAPES[name][-1]


def make_model(name: str, identifier_tokens: int, device: str, precision: str) -> PreTrainedModel:
    """Random weights, made where they stay."""
    hidden, intermediate, layers, heads, kv_heads, words = SHAPES[name]
    config = LlamaConfig(
        vocab_size=words + identifier_tokens, hidden_size=hidden, intermediate_size=intermediate,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=4096, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(len(name))
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=DTYPES[precision]).eval()
    with torch.no_grad():
        head = model.get_output_embeddings()
        head.weight.mul_(SHARPNESS)
    return model


def facts_of(model: PreTrainedModel) -> ModelFacts:
    """What the latency measurement and ONNX Runtime's engine ask for."""
    config = model.config
    return ModelFacts(
        architecture="LlamaForCausalLM", parameters=model.num_parameters(), layers=config.num_hidden_layers,
        kv_heads=config.num_key_value_heads, head_dim=config.head_dim, vocabulary=config.vocab_size, context=4096,
    )  # fmt: skip


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes that every call reads: all weights but the embedding, of which it reads some rows."""
    embedding = model.get_input_embeddings()
    everything = sum(weight.nbytes for weight in model.parameters())
    return everything - sum(weight.nbytes for weight in embedding.parameters())


def torch_engine(model: PreTrainedModel, trie: ItemTrie, precision: str) -> Engine:
    """PyTorch, eagerly."""
    return TorchEngine(model, trie.vocabulary, precision=precision, threads=0)


def ort_engine(model: PreTrainedModel, trie: ItemTrie, precision: str, device: str, threads: int) -> Engine:
    """ONNX Runtime on the device: exported, given index inputs, optimised, opened."""
    from specbeam.engines.onnxruntime.backend import optimise
    from specbeam.engines.prepare import prepare_graph
    from specbeam.export.onnx import export_graph
    from specbeam.graphs.gather import write_gather

    facts = facts_of(model)
    with tempfile.TemporaryDirectory(prefix="specbeam-gpu-") as name:
        exported, prepared, final = (Path(name) / part / "model.onnx" for part in ("exported", "prepared", "final"))
        exported.parent.mkdir()
        export_graph(model, trie.vocabulary, exported)
        prepare_graph(exported, prepared, exported=precision, wanted=precision, mask_slots=LENGTH)  # type: ignore[arg-type]
        optimise(prepared, final, device, threads)
        write_gather(final.with_name(GATHER), facts.layers, precision)
        return load_ort_engine(final, facts, device=device, precision=precision, threads=threads)  # type: ignore[arg-type]


def measured_bandwidth(device: str) -> float:
    """Bytes a second that the device's memory reads and writes in a large copy."""
    source = torch.ones(1 << (30 if device == "cuda" else 26), dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    times = []
    for _ in range(6):
        start = perf_counter()
        copy.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return 2 * source.nbytes / median(times[1:])


class ScriptedDrafter(Drafter):
    """Knows the target's own beams for the first `accept` levels of every round, and nothing below.

    All else that it proposes is never needed. `spent`, a real drafter, is asked as well, for what a draft costs.
    """

    def __init__(self, truth: list[dict[int, Int64]], accept: int, trie: ItemTrie, spent: Drafter | None) -> None:
        """truth: every request's beams by depth; behind them the next best, in case rounding has them change places."""
        super().__init__("strict")
        self.seconds = 0.0  # of the script itself
        self._truth, self._accept, self._trie, self._spent = truth, accept, trie, spent
        self._rng = np.random.default_rng(0)

    def propose(self, frontier: Frontier, known: EvaluatedNodes, widths: Int64) -> DraftTree:
        if self._spent is not None:
            self._spent.propose(frontier, known, widths)
        start = perf_counter()
        rows: list[tuple[int, int, int, int]] = []  # level, request, rank, node
        for request in np.flatnonzero(frontier.active).tolist():
            above = frontier.running.nodes[request]
            above = above[above >= 0]
            for level, width in enumerate(widths[request].tolist(), 1):
                depth = int(frontier.depth[request]) + level
                if depth >= LENGTH:
                    break
                above = self._level(request, depth, above, width, level <= self._accept)
                rows += [(level, request, rank, node) for rank, node in enumerate(above.tolist())]
        level, request, rank, node = np.array(sorted(rows), np.int64).reshape(-1, 4).T
        tree = DraftTree(NodeList(request, node), level, rank, np.zeros(len(node)), self.mode)
        self.seconds += perf_counter() - start
        return tree

    def _level(self, request: int, depth: int, above: Int64, width: int, lucky: bool) -> Int64:
        """`width` children of the level above: the true beams first, or none of these."""
        true = self._truth[request][depth]
        useless = np.setdiff1d(self._trie.children(above)[1], true)
        known = true[:width] if lucky else true[:0]
        return np.concatenate([known, self._rng.permutation(useless)[: width - len(known)]])

    def retain(self, active: Bool) -> None:
        if self._spent is not None:
            self._spent.retain(active)

    def reseat(self, kept: Int64, requests: Sequence[Request]) -> None:
        raise NotImplementedError("nobody joins a batch whose beams are known")

    @property
    def calls(self) -> Int64:
        return np.zeros(len(self._truth), np.int64) if self._spent is None else self._spent.calls


@dataclass(frozen=True)
class Found:
    """What one batch's search found and took."""

    leaves: Int64  # [B, K]
    scores: np.ndarray  # [B, K]
    calls: int
    draft_calls: int
    seconds: float
    target_seconds: float
    draft_seconds: float
    scripted_seconds: float
    rounds: list[Round]

    @property
    def host_seconds(self) -> float:
        """Seconds outside the engines and the script."""
        return self.seconds - self.target_seconds - self.draft_seconds - self.scripted_seconds

    def levels(self) -> dict[int, dict[int, float]]:
        """Scores of the first request's beams, by depth; of a search that took one step a round."""
        found = {LENGTH: dict(zip(self.leaves[0].tolist(), self.scores[0].tolist(), strict=True))}
        for frontier in (done.verdict.frontier for done in self.rounds):
            beams = zip(frontier.running.nodes[0].tolist(), frontier.running.scores[0].tolist(), strict=True)
            if frontier.depth[0] < LENGTH:
                found[int(frontier.depth[0])] = {node: score for node, score in beams if node >= 0}
        return found

    def truth(self) -> list[dict[int, Int64]]:
        """Every request's beams by depth."""
        beams: list[dict[int, Int64]] = [{} for _ in self.leaves]
        for step in (step for done in self.rounds for step in done.verdict.steps):
            for request in np.flatnonzero(step.moved).tolist():
                nodes = step.nodes[request]
                beams[request][int(step.depth[request])] = nodes[nodes >= 0]
        return beams


@dataclass(frozen=True)
class Searcher:
    """A target and perhaps a draft on one catalog."""

    trie: ItemTrie
    target: Engine
    draft: Engine | None
    shape: DraftShape

    def __call__(
        self, prompts: Sequence[Int64], k: int, truth: list[dict[int, Int64]] | None = None, accept: int = 0
    ) -> Found:
        """Beam search, plain or (where the truth is known) with drafts that are right for `accept` levels."""
        start = perf_counter()
        view, stats = TrieView(self.trie, "full"), DecodeStats(self.trie.length)

        def evaluator(engine: Engine, role: str) -> TreeEvaluator:
            nodes = EvaluatedNodes(view, Scoring("full"))
            return TreeEvaluator(SharedPrefix(engine, np.empty(0, np.int64)), view, nodes, prompts, stats, role)

        target = evaluator(self.target, "target")
        drafter: Drafter = NoDrafter("strict", len(prompts))
        script = None
        if truth is not None:
            spent = None
            if self.draft is not None:
                spent = BeamDrafter("strict", ModelGuesses(evaluator(self.draft, "draft")), view)
            drafter = script = ScriptedDrafter(truth, accept, self.trie, spent)
        rounds: list[Round] = []
        planning = FixedPlanning(self.shape if script else None)
        session = Session(target, drafter, StrictVerifier("strict", view), planning, view, stats, rounds=rounds)
        frontier = session.run(np.full(len(prompts), k), np.zeros(len(prompts)))
        seconds = perf_counter() - start, stats.target_seconds, stats.draft_seconds, script.seconds if script else 0.0
        counts = int(target.calls.max()), int(drafter.calls.max())
        return Found(frontier.finished.nodes, frontier.finished.scores, *counts, *seconds, rounds)
