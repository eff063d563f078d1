"""`transformers` beam search under the item trie: the baseline that speed is measured against, and the tests' truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ..catalog.errors import EngineError
from ..catalog.finite import are_logprobs
from ..catalog.trie import ItemTrie
from ..engines.bundle.items import Bundle
from ..engines.torch import DTYPES, load_model
from ..export.quiet import quiet
from ..runtime.types import Int64, ScoringKind

Ranked = list[tuple[int, float]]  # (leaf, score), best first
DEAD = -1e8  # `generate` fills beams that it lacks with others at -1e9: they are not its answer


class Renormalise(LogitsProcessor):
    """Log-softmax over what is left of the vocabulary: `constrained` scoring, where the trie has masked the rest."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.log_softmax(-1)


def isolated_generate(model: Any, ids: torch.Tensor, settings: Mapping[str, Any], **inputs: Any) -> Any:
    """`model.generate` of prompts [B, P] under `settings`, else as transformers does by default: greedily.

    Nothing of the checkpoint's own settings is obeyed, as search obeys none. What a `GenerationConfig` leaves open is
    filled from the model's, which therefore stands aside meanwhile.
    """
    own, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        with torch.inference_mode():
            config = GenerationConfig(**settings)  # type: ignore[no-untyped-call]
            return model.generate(ids, generation_config=config, attention_mask=torch.ones_like(ids), **inputs)
    finally:
        model.generation_config = own


class TrieGenerate:
    """`generate` by beam search under the strict item trie, batch 1.

    end_token: what every identifier in the trie ends with; without one, all must be of one length.
    """

    def __init__(
        self, model: Any, trie: ItemTrie, *, end_token: int | None = None, scoring: ScoringKind = "full"
    ) -> None:
        leaves = trie.child_count == 0
        if end_token is None and (trie.depth[leaves] < trie.length).any():
            raise ValueError("identifiers of different lengths, and no end token: `generate` cannot finish the shorter")
        self._model, self._trie, self._end, self._scoring = model.eval(), trie, end_token, scoring
        self._allowed: dict[tuple[int, ...], list[int]] = {}
        self._leaf: dict[tuple[int, ...], int] = {}
        paths: dict[int, tuple[int, ...]] = {0: ()}
        for node in range(len(trie.parent)):
            if node:
                paths[node] = (*paths[int(trie.parent[node])], int(trie.vocabulary[trie.column[node]]))
            first, count = int(trie.first_child[node]), int(trie.child_count[node])
            if count:
                self._allowed[paths[node]] = trie.tokens(np.arange(first, first + count)).tolist()
            else:
                self._leaf[paths[node]] = node

    @classmethod
    def open(cls, bundle: Bundle, *, device: str, scoring: ScoringKind) -> "TrieGenerate":
        """The target's checkpoint in a bundle, on "cpu" or "cuda", in the bundle's precision.

        Raises `BundleError` where the checkpoint was left out at export, `EngineError` where it cannot be loaded.
        """
        with quiet():
            model: Any = load_model(bundle.folder("target/checkpoint"), DTYPES[bundle.manifest.precision])
        return cls(model.to(device), bundle.trie(), end_token=bundle.manifest.end_token, scoring=scoring)

    def __call__(self, prompt: Int64, k: int) -> Ranked:
        """The k best leaves for one prompt [P]; fewer where the catalog has fewer, or the search finds no more."""
        start, width = len(prompt), min(k, self._trie.identifiers)
        beyond = [0 if self._end is None else self._end]  # for beams that went on where no identifier does
        ids = torch.from_numpy(np.asarray(prompt, np.int64))[None].to(self._model.device)
        out = isolated_generate(
            self._model,
            ids,
            {
                "num_beams": width,
                "num_return_sequences": width,
                "max_new_tokens": self._trie.length,
                **({"length_penalty": 0.0, "early_stopping": False} if width > 1 else {}),
                "eos_token_id": self._end,
                "pad_token_id": 0,
                "return_dict_in_generate": True,
                "output_scores": width > 1 or self._scoring == "constrained",
                "output_logits": width == 1,
            },
            prefix_allowed_tokens_fn=lambda _, tokens: self._allowed.get(tuple(tokens[start:].tolist()), beyond),
            logits_processor=LogitsProcessorList([Renormalise()] if self._scoring == "constrained" else []),
        )
        sequences = [self._ended(sequence) for sequence in out.sequences[:, start:].tolist()]
        scores = [self._greedy_score(out, sequences[0])] if width == 1 else out.sequences_scores.tolist()
        if not are_logprobs(np.array(scores)):
            raise EngineError(
                "The checkpoint gives NaN or infinity as a log-probability: its activations overflow, or its weights "
                "are damaged. Export it in fp32 or bf16, or mend it."
            )
        ranked: dict[int, float] = {}
        for sequence, score in zip(sequences, scores, strict=True):
            if score > DEAD:
                ranked.setdefault(self._leaf[sequence], score)
        return list(ranked.items())

    def _ended(self, sequence: list[int]) -> tuple[int, ...]:
        """A sequence without the padding behind its end token."""
        return tuple(sequence[: sequence.index(self._end) + 1] if self._end in sequence else sequence)

    def _greedy_score(self, out: Any, sequence: tuple[int, ...]) -> float:
        """The score of greedy search, which returns none: `out.scores` are masked logits, or renormalised by us."""
        rows = out.scores if self._scoring == "constrained" else [row.float().log_softmax(-1) for row in out.logits]
        return float(sum(row[0, token].item() for row, token in zip(rows, sequence, strict=True)))
