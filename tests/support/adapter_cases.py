"""Tiny LoRA adapters with random weights."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tiny_models import identifier_tokens, make_model, make_tokenizer

IDENTIFIERS = identifier_tokens()
BOTH = ["embed_tokens", "lm_head"]


def make_adapter(
    folder: Path, *, tied: bool = False, resize: bool = True, spare: int = 0, **settings: Any
) -> tuple[Path, torch.nn.Module]:
    """A LoRA adapter with new identifier tokens and random weights, and the model it was saved from."""
    from peft import LoraConfig, get_peft_model

    words = make_tokenizer([])
    model = make_model(rows=len(words) + spare, tied=tied)
    model.save_pretrained(folder / "base")
    words.save_pretrained(folder / "base")
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    tokenizer = make_tokenizer(IDENTIFIERS)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        if resize:
            model.resize_token_embeddings(len(tokenizer))
        wrapped = get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **settings}))
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.2)
        wrapped.eval().save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")
    return folder / "adapter", wrapped
