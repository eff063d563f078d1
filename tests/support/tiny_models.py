"""Tiny random checkpoints, tokenizers and catalogs, the same in every run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

KINDS: Mapping[str, tuple[type, type]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
ENCODER_DECODERS: Mapping[str, tuple[type, type]] = {
    "t5": (T5Config, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5ForConditionalGeneration),
}
WORDS = ("<unk>", "<pad>", "<s>", "</s>", "user", "likes", "then", "next", ":", ",")
SPECIAL = WORDS[:4]
END = WORDS.index("</s>")
GOODS = ("desk lamp", "desk", "lamp", "armchair", "wall clock", "folding chair", "teapot", "kettle")
STYLES = ("", " walnut", " oak", " wrought iron")  # behind the goods, so that one is the beginning of another


def identifier_tokens(levels: int = 3, codes: int = 6) -> list[str]:
    """<a_0>, <a_1>, ..., <b_0>, ...: `codes` tokens for each of `levels` levels."""
    return [f"<{chr(ord('a') + level)}_{code}>" for level in range(levels) for code in range(codes)]


def make_tokenizer(identifiers: list[str]) -> PreTrainedTokenizerFast:
    """A word tokenizer that puts <s> first and has `identifiers` as added tokens, behind its words."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in identifiers])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", WORDS.index("<s>"))])
    return _wrap(tokenizer)


def make_text_tokenizer(*, vocabulary: int = 300, corpus: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows any text and writes the words of `text_catalog` in several tokens.

    Its special tokens have the ids of `make_tokenizer`'s; <s> is put first.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {goods}{style}," for goods in GOODS for style in STYLES] + list(corpus), trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", WORDS.index("<s>"))])
    return _wrap(tokenizer)


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def make_model(
    kind: str = "llama", *, rows: int, seed: int = 0, tied: bool = False, **settings: Any
) -> PreTrainedModel:
    """A model of one of `KINDS` with grouped-query attention, or of `ENCODER_DECODERS`; far from uniform predictions.

    Biases and norms are random, too. `settings` overrides the configuration.
    """
    if kind in ENCODER_DECODERS:
        return make_encoder_decoder(kind, rows=rows, seed=seed, **settings)
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


def make_encoder_decoder(kind: str, *, rows: int, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A model of `ENCODER_DECODERS` whose decoder is shallower than its encoder, and whose biases tell distances apart.

    Its decoder begins with <pad>, as those of T5 do.
    """
    config_class, model_class = ENCODER_DECODERS[kind]
    chosen: dict[str, Any] = {
        "vocab_size": rows,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
        "feed_forward_proj": "gated-gelu" if kind == "mt5" else "relu",
        "n_positions": 128,
        "eos_token_id": WORDS.index("</s>"),
        "pad_token_id": WORDS.index("<pad>"),
        "decoder_start_token_id": WORDS.index("<pad>"),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(**{**chosen, **settings})).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.uniform_(0.5, 1.5)
                elif "relative_attention_bias" in name:
                    weight.normal_(0, 1.5)
                elif name.startswith("shared"):  # the head, too, which scales by d_model**-0.5 in T5 alone
                    weight.mul_(2.0 if kind == "t5" else 0.4)
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
    tokenizer: PreTrainedTokenizerFast | None = None,
    **settings: Any,
) -> Path:
    """Save a tiny model with its tokenizer to `directory`; `spare_rows` rows of the matrices stand for no token.

    tokenizer: default `make_tokenizer` of `levels` and `codes`.
    """
    tokenizer = tokenizer or make_tokenizer(identifier_tokens(levels, codes))
    model = make_model(kind, rows=len(tokenizer) + spare_rows, seed=seed, tied=tied, **settings)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def tiny_catalog(
    path: Path, *, items: int = 40, levels: int = 3, codes: int = 6, seed: int = 0, ragged: bool = False
) -> Path:
    """Write an index.json of random identifiers (some shared by several items) to `path`.

    ragged: cut them to random lengths, so that some are the beginning of others.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, codes, (items, levels))
    lengths = rng.integers(1, levels + 1, items) if ragged else [levels] * items
    index = {
        str(i): [f"<{chr(ord('a') + d)}_{code}>" for d, code in enumerate(row[: lengths[i]])]
        for i, row in enumerate(chosen)
    }
    path.write_text(json.dumps(index), encoding="utf-8")
    return path


def text_catalog(path: Path) -> Path:
    """Write an index.json of identifiers that are words, such as [" desk lamp", " walnut"], to `path`."""
    names = [[f" {goods}", style] if style else [f" {goods}"] for goods in GOODS for style in STYLES]
    path.write_text(json.dumps(dict(zip(map(str, range(len(names))), names, strict=True))), encoding="utf-8")
    return path
