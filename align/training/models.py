"""Models and tokenizers that know a catalog's identifiers: from nothing, or a checkpoint's with rows added."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ...catalog.errors import CatalogError, OptionError
from ...catalog.identifiers import is_text
from ...catalog.items import Catalog
from ...engines.decoder_facts import matrix
from ...export.checkpoint import Checkpoint
from .configs import Size, find_config

SPECIAL = ("<pad>", "<s>", "</s>")
BOS = SPECIAL.index("<s>")


def build_tokenizer(tokens: Sequence[str], text: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer with `<pad>`, `<s>`, `</s>` as 0, 1, 2, then the identifier tokens in the given order, then words.

    The identifiers are added tokens, so that a run of them splits at no other place; `<s>` is put first.
    The words are those of `text`.
    """
    splitter = pre_tokenizers.Whitespace()
    words = [word for word, _ in splitter.pre_tokenize_str(text)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys((*SPECIAL, *tokens, *words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]


def add_identifiers(tokenizer: PreTrainedTokenizerBase, catalog: Catalog) -> None:
    """Add the identifier tokens that the vocabulary lacks, unless identifiers are text to it."""
    try:
        if is_text(tokenizer, catalog):
            return
    except CatalogError:  # strings that are meant to be tokens and are not yet
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in catalog.tokens if token not in vocabulary]
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in missing])


def build_model(
    config: str | Path | Size, tokenizer: PreTrainedTokenizerBase, *, context: int, seed: int
) -> PreTrainedModel:
    """A randomly initialised model in float32; torch's global generator is left as it was."""
    chosen = find_config(config, context)
    chosen.vocab_size = len(tokenizer)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(chosen, name, getattr(tokenizer, name))
    if chosen.is_encoder_decoder:
        chosen.decoder_start_token_id = _start(tokenizer)
    kind: Any = AutoModelForSeq2SeqLM if chosen.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = kind.from_config(chosen, dtype=torch.float32)
    return model


def _start(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that an encoder-decoder's answer begins with: as of T5's own, the one that pads."""
    if tokenizer.pad_token_id is None:
        raise OptionError(
            "the tokenizer has no pad token, with which the decoder of an encoder-decoder begins. Set "
            "tokenizer.pad_token to a token that no prompt and no identifier holds, and save it again."
        )
    return int(tokenizer.pad_token_id)


def load_with_rows(directory: Path, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A checkpoint's model in float32 with rows for the tokens that it did not know.

    New rows are drawn around the mean of the others, with their spread. Raises `ExportError` for what
    export would refuse.
    """
    checkpoint = Checkpoint.open(directory)
    model = checkpoint.load("fp32", [])
    known = set(checkpoint.tokenizer.get_vocab().values())
    new = sorted(set(tokenizer.get_vocab().values()) - known)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        before = len(matrix(model.get_input_embeddings()))
        if len(tokenizer) > before:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        matrices = {id(weight): weight for weight in map(matrix, (model.get_input_embeddings(), head))}
        for weight in matrices.values() if new else ():  # one matrix where they are tied
            rows = weight[:before]
            weight[new] = rows.mean(0) + rows.std(0) * torch.randn(len(new), weight.shape[1])
    return model


def hidden_width(model: PreTrainedModel) -> int:
    """H: the width of the model's layers."""
    return int(model.config.hidden_size)


def check_context(context: int, longest: int, history_length: int) -> None:
    """Raise `OptionError` where prompts and answers do not fit into a model's context."""
    if longest > context:
        raise OptionError(
            f"{history_length} items of history and the answer are up to {longest} tokens; the model's context is "
            f"{context}. Use a smaller --history-length, or a model with more context."
        )
