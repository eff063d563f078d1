"""`transformers` beam search under the item trie: the baseline that speed is measured against, and the tests' truth."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Final, Literal

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
Mask = Literal["function", "arrays"]  # of the trie: asked for every beam in Python, or all beams at once
PADDING: Final = 0  # a token id; what it stands for is never seen
DEAD = -1e8  # `generate` fills beams that it lacks with others at -1e9: they are not its answer


class Renormalise(LogitsProcessor):
    """Log-softmax over what is left of the vocabulary: `constrained` scoring, where the trie has masked the rest."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.log_softmax(-1)


class TrieArrays:
    """The trie as tensors: a node's child by its token, and the tokens of a node's children."""

    def __init__(self, trie: ItemTrie, device: Any) -> None:
        tokens = np.concatenate([[0], trie.tokens(np.arange(1, len(trie.parent)))])  # the root has none
        self._above = int(trie.vocabulary.max()) + 1
        keys = trie.parent[1:].astype(np.int64) * self._above + tokens[1:]  # ascending, as nodes are numbered
        parts = keys, trie.first_child.astype(np.int64), trie.child_count.astype(np.int64), tokens
        self._keys, self._first, self._count, self._tokens = (torch.from_numpy(part).to(device) for part in parts)

    def nodes(self, sequences: torch.Tensor) -> torch.Tensor:
        """[n] the node that each row of tokens [n, d] leads to from the root; -1: none."""
        node = torch.zeros(len(sequences), dtype=torch.int64, device=sequences.device)
        for token in sequences.T:
            key = node * self._above + token
            place = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
            there = (self._keys[place] == key) & (node >= 0) & (token < self._above)
            node = torch.where(there, place + 1, -1)
        return node

    def allowed(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and token of every child of nodes [n]; -1 has none."""
        count = torch.where(node >= 0, self._count[node.clamp(min=0)], 0)
        row = torch.repeat_interleave(torch.arange(len(node), device=node.device), count)
        within = torch.arange(len(row), device=node.device) - (count.cumsum(0) - count)[row]
        return row, self._tokens[self._first[node[row]] + within]


class TrieMask(LogitsProcessor):
    """The trie's mask for all beams at once; `beyond`: what is allowed where no identifier goes on."""

    def __init__(self, arrays: TrieArrays, start: int, beyond: int) -> None:
        self._arrays, self._start, self._beyond = arrays, start, beyond

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        row, token = self._arrays.allowed(self._arrays.nodes(input_ids[:, self._start :]))
        masked = torch.full_like(scores, -torch.inf)
        masked[row, token] = scores[row, token]
        ended = torch.bincount(row, minlength=len(scores)) == 0
        masked[ended, self._beyond] = scores[ended, self._beyond]
        return masked


def isolated_generate(
    model: Any, ids: torch.Tensor, settings: Mapping[str, Any], *, real: torch.Tensor | None = None, **inputs: Any
) -> Any:
    """`model.generate` of prompts [B, P] under `settings`, else as transformers does by default: greedily.

    real [B, P]: 1 for tokens, 0 for the padding before them; None: there is none.

    Nothing of the checkpoint's own settings is obeyed, as search obeys none. What a `GenerationConfig` leaves open is
    filled from the model's, which therefore stands aside meanwhile.
    """
    own, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        with torch.inference_mode():
            config = GenerationConfig(**settings)  # type: ignore[no-untyped-call]
            return model.generate(
                ids, generation_config=config, attention_mask=torch.ones_like(ids) if real is None else real, **inputs
            )
    finally:
        model.generation_config = own


class TrieGenerate:
    """`generate` by beam search under the strict item trie.

    end_token: what every identifier in the trie ends with; without one, all must be of one length. mask: how the trie
    is asked; "function" is `prefix_allowed_tokens_fn`.
    """

    def __init__(
        self,
        model: Any,
        trie: ItemTrie,
        *,
        end_token: int | None = None,
        scoring: ScoringKind = "full",
        mask: Mask = "function",
    ) -> None:
        leaves = trie.child_count == 0
        if end_token is None and (trie.depth[leaves] < trie.length).any():
            raise ValueError("identifiers of different lengths, and no end token: `generate` cannot finish the shorter")
        self.model, self._mask = model.eval(), mask
        self._trie, self._end, self._scoring = trie, end_token, scoring
        self._beyond = 0 if end_token is None else end_token  # for beams that went on where no identifier does
        self._arrays = TrieArrays(trie, model.device)
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

    def masked_by(self, mask: Mask) -> "TrieGenerate":
        """The same model and trie, which is asked in another way."""
        other = copy(self)
        other._mask = mask
        return other

    def __call__(self, prompt: Int64, k: int) -> Ranked:
        """The k best leaves for one prompt [P]; fewer where the catalog has fewer, or the search finds no more."""
        return self.batch([prompt], k)[0]

    def batch(self, prompts: Sequence[Int64], k: int) -> list[Ranked]:
        """As of one prompt, for several at once: the shorter are padded before their beginning."""
        width, longest = min(k, self._trie.identifiers), max(map(len, prompts))
        ids = np.full((len(prompts), longest), PADDING, np.int64)
        real = np.arange(longest) >= longest - np.array([len(prompt) for prompt in prompts])[:, None]
        ids[real] = np.concatenate(prompts)
        tokens, there = (torch.from_numpy(array).to(self.model.device) for array in (ids, real.astype(np.int64)))
        first = self.model.config.decoder_start_token_id if self.model.config.is_encoder_decoder else None
        start = longest if first is None else 1  # tokens before what is generated
        out = isolated_generate(
            self.model,
            tokens,
            {
                **({} if first is None else {"decoder_start_token_id": first}),
                "num_beams": width,
                "num_return_sequences": width,
                "max_new_tokens": self._trie.length,
                **({"length_penalty": 0.0, "early_stopping": False} if width > 1 else {}),
                "eos_token_id": self._end,
                "pad_token_id": PADDING,
                "return_dict_in_generate": True,
                "output_scores": width > 1 or self._scoring == "constrained",
                "output_logits": width == 1,
            },
            real=there,
            **self._masks(start),
        )
        found = [self._ended(sequence) for sequence in out.sequences[:, start:].tolist()]
        scores = self._greedy_scores(out, found) if width == 1 else out.sequences_scores.tolist()
        if not are_logprobs(np.array(scores)):
            raise EngineError(
                "The checkpoint gives NaN or infinity as a log-probability: its activations overflow, or its weights "
                "are damaged. Export it in fp32 or bf16, or mend it."
            )
        pairs = list(zip(found, scores, strict=True))
        return [self._ranked(pairs[i : i + width]) for i in range(0, len(pairs), width)]

    def _masks(self, start: int) -> dict[str, Any]:
        """What `generate` is told of the trie, for prompts of `start` tokens."""
        after = [Renormalise()] if self._scoring == "constrained" else []
        if self._mask == "arrays":
            mask = TrieMask(self._arrays, start, self._beyond)
            return {"logits_processor": LogitsProcessorList([mask, *after])}
        beyond = [self._beyond]
        return {
            "prefix_allowed_tokens_fn": lambda _, ids: self._allowed.get(tuple(ids[start:].tolist()), beyond),
            "logits_processor": LogitsProcessorList(after),
        }

    def _ranked(self, pairs: Sequence[tuple[tuple[int, ...], float]]) -> Ranked:
        """One prompt's sequences and scores as leaves, each once."""
        ranked: dict[int, float] = {}
        for sequence, score in pairs:
            if score > DEAD:
                ranked.setdefault(self._leaf[sequence], score)
        return list(ranked.items())

    def _ended(self, sequence: list[int]) -> tuple[int, ...]:
        """A sequence without the padding behind its end token."""
        return tuple(sequence[: sequence.index(self._end) + 1] if self._end in sequence else sequence)

    def _greedy_scores(self, out: Any, sequences: Sequence[tuple[int, ...]]) -> list[float]:
        """Scores of greedy search, which returns none: `out.scores` are masked logits, or renormalised by us."""
        rows = out.scores if self._scoring == "constrained" else [row.float().log_softmax(-1) for row in out.logits]
        return [
            float(sum(row[i, token].item() for row, token in zip(rows, sequence, strict=False)))
            for i, sequence in enumerate(sequences)
        ]
