"""Prompts: compiled from a tokenizer once, at export; at run time only token ids are put together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import CatalogError, PromptError
from .files import Frozen
from .items import Catalog

HISTORY = "{history}"
PROOF_HISTORIES = 48  # pseudo-random histories on which a compiled prompt is compared with the tokenizer

Int64 = NDArray[np.int64]


class PromptSpec(Frozen, frozen=True):
    """A prompt without its tokenizer: prefix, items joined by the separator (oldest first), suffix."""

    template: str  # the text the ids were made from, with "{history}" where the items go
    separator: str
    prefix_ids: tuple[int, ...]
    separator_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    history_length: int  # at most so many items, the most recent ones


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """One request's prompt."""

    ids: Int64  # [T]
    kept: int  # items in it
    shortened: bool  # fewer items than min(history_length, len(history)): the context would not hold them


class PromptEncoder:
    """Turns histories into token ids by a `PromptSpec`.

    `item_tokens` [I, L] holds every item's token ids in catalog order, `max_tokens` is the longest
    prompt that the context holds. Raises `PromptError` when not even one item fits.
    """

    def __init__(self, spec: PromptSpec, item_tokens: Int64, max_tokens: int) -> None:
        self.spec = spec
        self._tokens = item_tokens
        self._prefix, self._separator, self._suffix = (
            np.array(ids, np.int64) for ids in (spec.prefix_ids, spec.separator_ids, spec.suffix_ids)
        )
        step = item_tokens.shape[1] + len(self._separator)
        frame = len(self._prefix) + len(self._suffix)
        fitting = (max_tokens - frame + len(self._separator)) // step
        if fitting < 1:
            raise PromptError(
                f"the prompt does not fit: one item of {item_tokens.shape[1]} tokens and {frame} tokens around the "
                f"history, but the context leaves {max_tokens}. Use a shorter template or a model with more context."
            )
        self.max_items = min(spec.history_length, fitting)  # the most items a prompt can hold

    def encode(self, items: Int64 | Sequence[int]) -> EncodedPrompt:
        """The prompt of a history given as catalog positions, oldest first.

        Raises `PromptError` on an empty history.
        """
        if len(items) == 0:
            raise PromptError("the history is empty; expected at least one item of the catalog.")
        recent = np.asarray(items[-self.max_items :], np.int64)
        kept, length, gap = len(recent), self._tokens.shape[1], len(self._separator)
        body = np.empty((kept, length + gap), np.int64)
        body[:, :length] = self._tokens[recent]
        body[:, length:] = self._separator
        joined = body.ravel()[: body.size - gap]
        ids = np.concatenate((self._prefix, joined, self._suffix))
        return EncodedPrompt(ids, kept, kept < min(self.spec.history_length, len(items)))


class Tokenizer(Protocol):
    """What `compile_prompt` needs of a transformers tokenizer."""

    @property
    def bos_token(self) -> str | None: ...

    @property
    def all_special_tokens(self) -> list[str]: ...

    def get_vocab(self) -> dict[str, int]: ...

    def __call__(self, text: Any, *, add_special_tokens: bool = ...) -> Any: ...

    def apply_chat_template(self, conversation: Any, *, add_generation_prompt: bool, tokenize: bool) -> Any: ...


def compile_prompt(
    tokenizer: Tokenizer, catalog: Catalog, *, template: str | None, separator: str, chat: bool, history_length: int
) -> PromptSpec:
    """Find the ids of a prompt's fixed parts, and prove them against the tokenizer.

    `template=None` is the tokenizer's bos (if it has one) and the items' tokens, without separator.
    A template holds "{history}" once and is tokenized as `tokenizer(text)` does, special tokens
    included; with `chat` it (or just "{history}") is the user's message in the tokenizer's chat
    template, rendered now, once for all requests. Raises `PromptError`, after which no prompt of
    this template can be relied on.
    """
    if history_length < 1:
        raise PromptError(f"the history length is {history_length}; expected at least 1.")
    if template is None and not chat and separator:
        raise PromptError(f"the separator {separator!r} needs a template (for example {HISTORY!r}); got none.")
    message = HISTORY if template is None else template
    if message.count(HISTORY) != 1:
        raise PromptError(f"the template {message!r} holds {HISTORY} {message.count(HISTORY)} times; expected once.")

    def render(history: str) -> str:
        text = message.replace(HISTORY, history)
        if chat:
            return _chat(tokenizer, text)
        return text if template is not None else (tokenizer.bos_token or "") + text

    rendered = render(HISTORY)
    if rendered.count(HISTORY) != 1:
        raise PromptError(f"the chat template changes {HISTORY}: it renders as {rendered!r}; write a literal template.")
    # a chat template, and the bos of no template, already hold the special tokens
    source = _Source(tokenizer, catalog, rendered, separator, render, special=not chat and template is not None)
    spec = _derive(source, history_length)
    _prove(source, spec)
    _refuse_unknown_text(source)
    return spec


@dataclass(frozen=True)
class _Source:
    """The prompt as text, by which its ids are found and judged."""

    tokenizer: Tokenizer
    catalog: Catalog
    template: str  # rendered
    separator: str
    render: Callable[[str], str]
    special: bool  # whether the tokenizer adds its own special tokens

    @cached_property
    def item_tokens(self) -> Int64:
        """Token ids [I, L]; raises `PromptError` for tokens that are not one id of the tokenizer."""
        vocabulary = self.tokenizer.get_vocab()
        try:
            ids = self.catalog.token_ids(vocabulary)
        except CatalogError as error:
            raise PromptError(str(error)) from None
        tokens = list(self.catalog.tokens)
        encoded = self.tokenizer(tokens, add_special_tokens=False)["input_ids"]
        split = [token for token, got in zip(tokens, encoded, strict=True) if vocabulary[token] not in got]
        if split:
            shown = ", ".join(map(repr, split[:5])) + (f" and {len(split) - 5} more" if len(split) > 5 else "")
            raise PromptError(
                f"the tokenizer takes {len(split)} of the catalog's {len(tokens)} tokens apart, although its "
                f"vocabulary has them: {shown}. Add them with tokenizer.add_tokens(...) (their ids stay) and save it."
            )
        return ids

    def text(self, items: Iterable[int]) -> str:
        """The full prompt of a history of catalog positions."""
        return self.render(self.separator.join("".join(self.catalog.identifiers[item]) for item in items))

    def encode(self, items: Iterable[int]) -> list[int]:
        """The tokenizer's ids of the full prompt."""
        return list(self.tokenizer(self.text(items), add_special_tokens=self.special)["input_ids"])


def _chat(tokenizer: Tokenizer, text: str) -> str:
    """The chat template's text with `text` as the user's message, ready for the answer."""
    try:
        conversation = [{"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False))
    except Exception as error:  # Jinja's own errors, and those a template raises
        message = str(error).strip().splitlines()
        raise PromptError(
            f"the tokenizer's chat template cannot be applied: {message[0] if message else type(error).__name__}. "
            "Give the tokenizer a chat template that takes one user message, or write it out as a literal template."
        ) from None


def _derive(source: _Source, history_length: int) -> PromptSpec:
    """Cut the items' ids out of full prompts of one and two items; what remains are the fixed parts."""
    ids, length = source.item_tokens, source.item_tokens.shape[1]
    samples = sorted({0, len(ids) // 2, len(ids) - 1})
    singles = {item: source.encode([item]) for item in samples}
    # The place of the history is the one where every sample's own ids stand: the template's text may
    # hold an identifier, too.
    places = set.intersection(*(_places(singles[item], ids[item]) for item in samples))
    if not places:
        first = samples[0]
        raise _mismatch(source, [first], singles[first], ids[first].tolist())
    start = min(places)
    single = singles[samples[0]]
    prefix, suffix = single[:start], single[start + length :]
    pair = source.encode([samples[0], samples[-1]])
    between = pair[start + length : len(pair) - len(suffix) - length]
    return PromptSpec(
        template=source.template,
        separator=source.separator,
        prefix_ids=tuple(prefix),
        separator_ids=tuple(between),
        suffix_ids=tuple(suffix),
        history_length=history_length,
    )


def _places(ids: list[int], item: Int64) -> set[int]:
    """Where the item's tokens stand side by side in `ids`."""
    wanted = item.tolist()
    return {place for place in range(len(ids) - len(wanted) + 1) if ids[place : place + len(wanted)] == wanted}


def _prove(source: _Source, spec: PromptSpec) -> None:
    """Compare assembled prompts with the tokenizer's: random histories, and an item for every token of the catalog."""
    rng = np.random.default_rng(0)
    ids = source.item_tokens
    lengths = 1 + np.arange(PROOF_HISTORIES) % spec.history_length
    histories = [rng.integers(len(ids), size=length) for length in lengths]
    _, first = np.unique(ids, return_index=True)
    twice = min(2, spec.history_length)  # so that a separator stands on either side
    histories += [np.full(twice, item) for item in np.unique(first // ids.shape[1])]
    longest = len(spec.prefix_ids) + len(spec.suffix_ids)
    longest += spec.history_length * (ids.shape[1] + len(spec.separator_ids))
    encoder = PromptEncoder(spec, ids, longest)
    for history in histories:
        got, expected = encoder.encode(history).ids.tolist(), source.encode(history)
        if got != expected:
            raise _mismatch(source, history, expected, got)


def _refuse_unknown_text(source: _Source) -> None:
    """Raise `PromptError` when words of the prompt are unknown to the tokenizer.

    It then writes a special token (usually `<unk>`) that the text does not hold.
    """
    text = source.text([0, 0])
    ids = list(source.tokenizer(text, add_special_tokens=False)["input_ids"])
    vocabulary = source.tokenizer.get_vocab()
    wrong = [t for t in source.tokenizer.all_special_tokens if ids.count(vocabulary.get(t, -1)) > text.count(t)]
    if wrong:
        raise PromptError(
            f"the tokenizer does not know some of the text of the prompt {source.template!r} (separator "
            f"{source.separator!r}): it writes {', '.join(wrong)} in its place. Use the words that the model was "
            "trained with, or no template."
        )


def _mismatch(source: _Source, history: Iterable[int], expected: list[int], got: list[int]) -> PromptError:
    items = [source.catalog.item_ids[item] for item in history]
    return PromptError(
        f"the prompt cannot be put together from token ids as the tokenizer does it.\n"
        f"  template: {source.template!r}, separator: {source.separator!r}\n"
        f"  history (items): {', '.join(items)}\n"
        f"  text: {source.text(history)!r}\n"
        f"  assembled ids: {got}\n"
        f"  the tokenizer's ids: {expected}\n"
        "Text next to the identifiers changes how they, or it, are tokenized. Often a tokenizer adds or drops a space "
        "beside added tokens (SentencePiece) or joins text with them: put a space into the separator and the template "
        "around {history}, use another separator, or re-add the identifiers with AddedToken(..., normalized=False, "
        "lstrip=False, rstrip=False) and no prefix space."
    )
