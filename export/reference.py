"""What a plain Hugging Face model says of token trees: each path the ordinary way, as a sequence of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from ..engines.bundle.facts import ModelFacts
from ..engines.torch import torch_threads
from .scenes import LONG, Scene

KEPT = 32  # tokens of a long path whose logits the model computes: a vocabulary may be large
SMALL = 50_000_000  # parameters below which a few tokens are too little work to share between threads


@dataclass(frozen=True)
class Reference:
    """What the plain model says; NaN in padding, and where a long prompt's logits are not asked for."""

    logprobs: NDArray[np.float32]  # [B, T, C]
    presents: list[NDArray[np.float32]]  # key, value of every layer: [B, T, G, D]


def reference(model: PreTrainedModel, facts: ModelFacts, scene: Scene, vocabulary: NDArray[np.int64]) -> Reference:
    """Every root-to-leaf path through the plain model, each a sequence of its own; those of a tree in one call.

    Shorter ones are filled up behind their ends, which no token in front of them sees.
    """
    batch, width = scene.tokens.shape
    shape = (batch, width, facts.kv_heads, facts.head_dim)
    logprobs = np.full((batch, width, len(vocabulary)), np.nan, np.float32)
    presents = [np.full(shape, np.nan, np.float32) for _ in facts.cache_names]
    columns = torch.from_numpy(vocabulary)
    threads = 1 if model.num_parameters() < SMALL and width < LONG else 0
    for b in range(batch):
        paths = [scene.path(b, leaf) for leaf in scene.leaves(b)]
        tokens = np.zeros((len(paths), max(map(len, paths))), np.int64)
        for row, path in zip(tokens, paths, strict=True):
            row[: len(path)] = scene.tokens[b, path]
        with torch.inference_mode(), torch_threads(threads):
            logits, tensors = _asked(model, tokens, scene.start)
            first = tokens.shape[1] - logits.shape[1]  # of a long path only the last ones have logits
            for i, path in enumerate(paths):
                said = logits[i, : len(path) - first].float().log_softmax(-1)[:, columns]
                logprobs[b, path[first:]] = said.numpy()
                for present, tensor in zip(presents, tensors, strict=True):
                    present[b, path] = tensor[i, :, : len(path)].transpose(0, 1).float().numpy()
    return Reference(logprobs, presents)


def _asked(model: PreTrainedModel, tokens: NDArray[np.int64], start: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits of the last tokens, and key and value of every layer, of sequences [N, T] that begin at a position."""
    length = tokens.shape[1]
    settings: dict[str, Any] = {"logits_to_keep": KEPT} if length > LONG else {}
    if start:
        settings["position_ids"] = torch.arange(start, start + length).repeat(len(tokens), 1)
    cache = DynamicCache()  # whatever windows its layers have: it keeps all
    output = model(input_ids=torch.from_numpy(tokens), past_key_values=cache, use_cache=True, **settings)
    return output.logits, [t for layer in output.past_key_values.layers for t in (layer.keys, layer.values)]
