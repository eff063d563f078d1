"""Prompts compiled by tokenizers that are made up."""

import re

import numpy as np
import pytest
from hypothesis import strategies as st

from specbeam.catalog import Catalog, PromptOptions, compile_prompt
from specbeam.catalog.errors import PromptError

LETTERS = "abc"


TOKENS = [f"<{letter}_{code}>" for letter in LETTERS for code in range(6)]


CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


CORPUS = ["The user bought these items: one, two; three and four. What is next? user assistant\n"] * 4


def make_catalog(items=40, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(6, size=(items, 3))
    identifiers = tuple(tuple(f"<{x}_{c}>" for x, c in zip(LETTERS, row, strict=True)) for row in codes)
    return Catalog(tuple(map(str, range(items))), identifiers, (None,) * items)


CATALOG = make_catalog()


ids = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def wrap(backend, identifiers=TOKENS, bos="<s>", **options):
    """A transformers tokenizer around a `tokenizers` one, with the identifiers as added tokens."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, **options)
    tokenizer.add_tokens(identifiers)
    return tokenizer


def words(pre_tokenizer="Whitespace", extra=()):
    """Word-level, with a bos put before every text by the post-processor."""
    tk = pytest.importorskip("tokenizers")
    known = ["<unk>", "<s>", *sorted(set(re.findall(r"\w+|[^\w\s]+", CORPUS[0]))), *extra]
    backend = tk.Tokenizer(tk.models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    backend.pre_tokenizer = getattr(tk.pre_tokenizers, pre_tokenizer)()
    backend.post_processor = tk.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def byte_level(bos, corpus=(), size=400):
    """Byte-level BPE as GPT-2's and Qwen's; knows any text, adds nothing."""
    tk = pytest.importorskip("tokenizers")
    backend = tk.Tokenizer(tk.models.BPE())
    backend.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tk.decoders.ByteLevel()
    special = ["<|start|>", "<|end|>", *([bos] if bos else [])]
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    trainer = tk.trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator([*CORPUS, *corpus], trainer)
    return backend


def metaspace(scheme):
    """As SentencePiece: spaces are letters of words, and one may be put before a text."""
    tk = pytest.importorskip("tokenizers")
    backend = tk.Tokenizer(tk.models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = tk.pre_tokenizers.Metaspace(prepend_scheme=scheme)
    special = ["<unk>", "<s>", "<|start|>", "<|end|>"]
    trainer = tk.trainers.BpeTrainer(vocab_size=200, special_tokens=special)
    backend.train_from_iterator([*CORPUS, "a, b , c\n user"], trainer)
    backend.post_processor = tk.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def legacy_llama():
    """As the converted Llama tokenizers: a normalizer writes the spaces, also before text after an added token."""
    tk = pytest.importorskip("tokenizers")
    backend = metaspace("always")
    backend.pre_tokenizer = None
    backend.normalizer = tk.normalizers.Sequence([tk.normalizers.Prepend("▁"), tk.normalizers.Replace(" ", "▁")])
    return backend


def as_they_are(tokens):
    """Tokens found in the text before a normalizer touches it."""
    tk = pytest.importorskip("tokenizers")
    return [tk.AddedToken(token, normalized=False) for token in tokens]


TOKENIZERS = {
    "words": lambda: wrap(words(), unk_token="<unk>"),
    "bytes": lambda: wrap(byte_level("<s>"), chat_template=CHAT),
    "bytes, no bos": lambda: wrap(byte_level(None), bos=None, chat_template=CHAT),
    "metaspace always": lambda: wrap(metaspace("always"), unk_token="<unk>", chat_template=CHAT),
    "metaspace first": lambda: wrap(metaspace("first"), unk_token="<unk>", chat_template=CHAT),
    "metaspace never": lambda: wrap(metaspace("never"), unk_token="<unk>", chat_template=CHAT),
    "legacy llama": lambda: wrap(legacy_llama(), as_they_are(TOKENS), unk_token="<unk>", chat_template=CHAT),
}


def refuse(message, tokenizer, catalog=CATALOG, template=None, separator="", history_length=5, **options):
    options = PromptOptions(prompt=template, separator=separator, history_length=history_length, **options)
    with pytest.raises(PromptError, match=message) as caught:
        compile_prompt(tokenizer, catalog, options)
    return str(caught.value)
