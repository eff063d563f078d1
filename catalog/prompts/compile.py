"""A prompt's fixed parts as token ids, found in what a tokenizer makes of whole prompts, and proven against it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CatalogError, PromptError
from ..identifiers import Tokenizer, Warn, adds_special, identifier_ids, is_text, joined, warn_of_bos
from ..items import Catalog, some
from ..rows import row_numbers
from ..trie import PAD, blocks
from .chat import Chat
from .encoder import PromptEncoder, PromptSpec
from .options import PromptOptions

HISTORY = "{history}"
PROOF_HISTORIES = 48  # pseudo-random histories on which a compiled prompt is compared with the tokenizer
PROOF_BATCH = 1000  # prompts that the tokenizer is given at a time

Int64 = NDArray[np.int64]


def compile_prompt(
    tokenizer: Tokenizer, catalog: Catalog, options: PromptOptions, warn: Warn = lambda text: None,
    ids: Int64 | None = None,
) -> PromptSpec:  # fmt: skip
    """Find the ids of a prompt's fixed parts, and prove them against the tokenizer.

    No prompt is the tokenizer's bos (if it has one) and the items' tokens, without separator. A prompt
    holds "{history}" once and is tokenized as `tokenizer(text)` does, special tokens included unless it
    begins with them itself; with `chat` it (or just "{history}") is the user's message in the tokenizer's
    chat template, rendered now, once for all requests. `warn` is told of a bos that stands there twice and of
    variables that change nothing. ids: what `identifier_ids` makes of the catalog, where that is known. Raises
    `PromptError`, after which no prompt of this template can be relied on.
    """
    template, separator = options.prompt, options.separator
    if options.history_length < 1:
        raise PromptError(f"the history length is {options.history_length}; expected at least 1.")
    if template is None and not options.chat and separator:
        raise PromptError(f"the separator {separator!r} needs a template (for example {HISTORY!r}); got none.")
    message = HISTORY if template is None else template
    if message.count(HISTORY) != 1:
        raise PromptError(f"the template {message!r} holds {HISTORY} {message.count(HISTORY)} times; expected once.")
    if HISTORY in (options.system or ""):
        raise PromptError(f"the system message {options.system!r} holds {HISTORY}, whose place is in the prompt.")
    chat = Chat(tokenizer, options.system, options.chat_variables)
    if options.chat:
        chat.check(warn)

    def render(history: str) -> str:
        text = message.replace(HISTORY, history)
        if options.chat:
            return chat.render(text)
        return text if template is not None else (tokenizer.bos_token or "") + text

    rendered = render(HISTORY)
    if rendered.count(HISTORY) != 1:
        raise PromptError(f"the chat template changes {HISTORY}: it renders as {rendered!r}; write a literal template.")
    # a chat template, and the bos of no template, already hold the special tokens
    literal = not options.chat and template is not None
    source = _Source(tokenizer, catalog, rendered, separator, options.join, render, literal, ids)
    spec = _derive(source, options.history_length)
    _prove(source, spec)
    _refuse_unknown_text(source)
    warn_of_bos(tokenizer, spec.prefix_ids + spec.separator_ids + spec.suffix_ids, warn)
    return spec


@dataclass(frozen=True)
class _Source:
    """The prompt as text, by which its ids are found and judged."""

    tokenizer: Tokenizer
    catalog: Catalog
    template: str  # rendered
    separator: str
    join: str  # between the strings of an identifier
    render: Callable[[str], str]
    literal: bool  # whether a tokenizer that adds special tokens is to add them
    known: Int64 | None = None  # `identifier_ids`

    @cached_property
    def special(self) -> bool:
        """Whether the tokenizer adds its own special tokens."""
        return self.literal and adds_special(partial(self._ids, self.text([0])))

    @cached_property
    def item_tokens(self) -> Int64:
        """Token ids [I, L]; raises `PromptError` for tokens that are not one id of the tokenizer."""
        try:
            ids = self.known
            if ids is None:
                ids = identifier_ids(self.tokenizer, self.catalog, self.join)
        except CatalogError as error:
            raise PromptError(str(error)) from None
        if self.is_text:
            return ids
        vocabulary, tokens = self.tokenizer.get_vocab(), list(self.catalog.tokens)
        encoded = self.tokenizer(tokens, add_special_tokens=False)["input_ids"]
        split = [token for token, got in zip(tokens, encoded, strict=True) if vocabulary[token] not in got]
        if split:
            raise PromptError(
                f"the tokenizer takes {len(split)} of the catalog's {len(tokens)} tokens apart, although its "
                f"vocabulary has them: {some(split)}. Add them with tokenizer.add_tokens(...) (their ids stay) and "
                "save it."
            )
        return ids

    @cached_property
    def is_text(self) -> bool:
        """Whether the identifiers are text, several tokens a word."""
        return is_text(self.tokenizer, self.catalog)

    def text(self, items: Iterable[int]) -> str:
        """The full prompt of a history of catalog positions."""
        return self.render(self.separator.join(joined(self.catalog, item, self.join) for item in items))

    def encode(self, histories: Iterable[Iterable[int]]) -> list[list[int]]:
        """The tokenizer's ids of the full prompts."""
        return self._ids([self.text(items) for items in histories], self.special)

    def _ids(self, text: Any, special: bool) -> list[Any]:
        try:
            return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        except Exception as error:  # the tokenizers library's own, of no better class
            raise PromptError(
                f"the tokenizer cannot take the prompt {self.template!r} (separator {self.separator!r}) apart: "
                f"{error}. Use the words that the model was trained with, or no template."
            ) from None


def _derive(source: _Source, history_length: int) -> PromptSpec:
    """Cut the items' ids out of full prompts of one and two items; what remains are the fixed parts."""
    ids = source.item_tokens
    samples = sorted({0, len(ids) // 2, len(ids) - 1})
    first, last = samples[0], samples[-1]
    *singles, pair = source.encode([*([item] for item in samples), [first, last]])
    # The place of the history is the one where every sample's own ids stand: the template's text may
    # hold an identifier, too.
    own = [ids[item][ids[item] != PAD].tolist() for item in samples]
    places = set.intersection(*map(_places, singles, own))
    if not places:
        raise _mismatch(source, [first], singles[0], own[0])
    start = min(places)
    prefix, suffix = singles[0][:start], singles[0][start + len(own[0]) :]
    between = pair[start + len(own[0]) : len(pair) - len(suffix) - len(own[-1])]
    return PromptSpec(
        template=source.template,
        separator=source.separator,
        prefix_ids=tuple(prefix),
        separator_ids=tuple(between),
        suffix_ids=tuple(suffix),
        history_length=history_length,
    )


def _places(ids: list[int], item: list[int]) -> set[int]:
    """Where the item's tokens stand side by side in `ids`."""
    return {place for place in range(len(ids) - len(item) + 1) if ids[place : place + len(item)] == item}


def _prove(source: _Source, spec: PromptSpec) -> None:
    """Compare assembled prompts with the tokenizer's: random histories, and what `_witnesses` names."""
    rng = np.random.default_rng(0)
    ids = source.item_tokens
    lengths = 1 + np.arange(PROOF_HISTORIES) % spec.history_length
    histories = [rng.integers(len(ids), size=length) for length in lengths]
    twice = min(2, spec.history_length)  # so that a separator stands on either side
    histories += [np.full(twice, item) for item in _witnesses(source)]
    longest = len(spec.prefix_ids) + len(spec.suffix_ids)
    longest += spec.history_length * (ids.shape[1] + len(spec.separator_ids))
    encoder = PromptEncoder(spec, ids, longest)
    for start in range(0, len(histories), PROOF_BATCH):
        batch = histories[start : start + PROOF_BATCH]
        for history, expected in zip(batch, source.encode(batch), strict=True):
            got = encoder.encode(history).ids.tolist()
            if got != expected:
                raise _mismatch(source, history, expected, got)


def _witnesses(source: _Source) -> Int64:
    """Items that stand for all: one for every token; all where they may merge with what stands beside them.

    Only tokens that were added to a vocabulary never do.
    """
    ids = source.item_tokens
    if source.is_text or not source.tokenizer.get_added_vocab().keys() >= set(source.catalog.tokens):
        return row_numbers(ids, int(ids.max()))[1]
    table, tokens = source.catalog.identifiers.table, len(source.catalog.tokens)
    first = np.full(tokens, len(table))
    for part in blocks(len(table)):
        for column in table[part].T:
            items = np.arange(part.start, part.stop)[column != PAD]
            np.minimum.at(first, column[column != PAD], items)
        if (first < len(table)).all():
            break  # what comes later comes second
    return np.unique(first)


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
        "lstrip=False, rstrip=False) and no prefix space. Identifiers that are text are words of the text around them: "
        'begin each with its own space (" desk lamp"), let no space stand before {history} or end the separator, '
        "and separate them by a line break if signs still merge."
    )
