"""A small Llama decoder over item identifiers, and a tokenizer that knows them: a Hugging Face checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..catalog.files import Frozen, whole_directory
from ..export.quiet import quiet

PAD, BOS, EOS = 0, 1, 2
SPECIAL = ("<pad>", "<s>", "</s>")
SPREAD = 0.1  # of initial weights: the usual 0.02 is for wide layers and costs small ones most of their steps


class ModelSize(Frozen, frozen=True, kw_only=True):
    """The shape of a decoder."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    context: int = 512  # positions


def build_tokenizer(tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with `<pad>`, `<s>`, `</s>` as 0, 1, 2 and the identifier tokens after them, in the given order.

    The identifiers are added tokens, so that a run of them splits at no other place; `<s>` is put first.
    """
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *tokens))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]


def build_decoder(size: ModelSize, vocabulary: int, *, seed: int) -> LlamaForCausalLM:
    """A randomly initialised decoder with tied embeddings, in float32; torch's global generator is left as it was."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.context,
        initializer_range=SPREAD,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def save_checkpoint(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path, *, replace: bool
) -> None:
    """Write a Hugging Face checkpoint (safetensors), whole or absent. Raises `SpecRecError` where `output` exists."""
    with whole_directory(output, kind="config.json", replace=replace) as part, quiet():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
