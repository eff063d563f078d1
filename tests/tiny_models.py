"""Tiny random checkpoints, tokenizers and catalogs, the same in every run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

KINDS: Mapping[str, tuple[type, type]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
WORDS = ("<unk>", "<pad>", "<s>", "</s>", "user", "likes", "then", "next", ":", ",")


def identifier_tokens(levels: int = 3, codes: int = 6) -> list[str]:
    """<a_0>, <a_1>, ..., <b_0>, ...: `codes` tokens for each of `levels` levels."""
    return [f"<{chr(ord('a') + level)}_{code}>" for level in range(levels) for code in range(codes)]


def make_tokenizer(identifiers: list[str]) -> PreTrainedTokenizerFast:
    """A word tokenizer that puts <s> first and has `identifiers` as added tokens, behind its words."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["<unk>", "<pad>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in identifiers])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", WORDS.index("<s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def make_model(
    kind: str = "llama", *, rows: int, seed: int = 0, tied: bool = False, **settings: Any
) -> PreTrainedModel:
    """A model of one of `KINDS` with grouped-query attention and far from uniform predictions.

    Biases and norms are random, too. `settings` overrides the configuration.
    """
    config_class, model_class = KINDS[kind]
    chosen: dict[str, Any] = {
        "vocab_size": rows,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
        "initializer_range": 0.3,
        "bos_token_id": WORDS.index("<s>"),
        "eos_token_id": WORDS.index("</s>"),
        "pad_token_id": WORDS.index("<pad>"),
    }
    if kind == "mistral":
        chosen["sliding_window"] = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(**{**chosen, **settings})).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("bias"):
                    weight.normal_(0, 0.3)
                elif "norm" in name:
                    weight.uniform_(0.5, 1.5)
    return model


def tiny_checkpoint(
    directory: Path,
    kind: str = "llama",
    *,
    levels: int = 3,
    codes: int = 6,
    seed: int = 0,
    tied: bool = False,
    spare_rows: int = 3,
    **settings: Any,
) -> Path:
    """Save a tiny model with its tokenizer to `directory`; `spare_rows` rows of the matrices stand for no token."""
    tokenizer = make_tokenizer(identifier_tokens(levels, codes))
    model = make_model(kind, rows=len(tokenizer) + spare_rows, seed=seed, tied=tied, **settings)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def tiny_catalog(path: Path, *, items: int = 40, levels: int = 3, codes: int = 6, seed: int = 0) -> Path:
    """Write an index.json of random identifiers (some shared by several items) to `path`."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, codes, (items, levels))
    index = {str(i): [f"<{chr(ord('a') + d)}_{code}>" for d, code in enumerate(row)] for i, row in enumerate(chosen)}
    path.write_text(json.dumps(index), encoding="utf-8")
    return path
