"""Identifiers in a tokenizer's ids: looked up token by token, or text that the tokenizer takes apart; and their end."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import CatalogError, is_fault
from .items import Catalog, lacking, padded, some
from .rows import row_numbers
from .trie import PAD, ItemTrie

Int64 = NDArray[np.int64]
Warn = Callable[[str], object]
EndToken = Literal["auto", "always", "never"]
_TOKEN = re.compile(r"<[^<>\s]+>")  # what identifier tokens look like; never taken apart as text
SHARE = "items that are to share one identifier need it in the same strings."


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    @property
    def bos_token(self) -> str | None: ...

    @property
    def eos_token(self) -> str | None: ...

    @property
    def all_special_tokens(self) -> list[str]: ...

    def get_vocab(self) -> dict[str, int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def __call__(self, text: Any, *, add_special_tokens: bool = ...) -> Any: ...

    def apply_chat_template(
        self, conversation: Any, *, add_generation_prompt: bool, tokenize: bool, **kwargs: Any
    ) -> Any: ...

    def get_chat_template(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Identifiers:
    """A catalog's identifiers in a tokenizer's ids."""

    tokens: Int64  # [I, L] as prompts hold them, without an end token; PAD behind the shorter ones
    trie: ItemTrie  # as they are generated: with the end token, where there is one
    end_token: int | None


def compile_identifiers(
    tokenizer: Tokenizer, catalog: Catalog, end_token: EndToken = "auto", join: str = ""
) -> Identifiers:
    """Find the ids of every identifier (see `identifier_ids`), and decide by which token they end.

    end_token: "always" puts the tokenizer's eos token behind every identifier, "never" behind none,
    "auto" behind all where their lengths in tokens differ, because only so can a search tell an
    identifier from the beginning of a longer one. Raises `CatalogError` as `identifier_ids` does,
    where the end token is missing or occurs within an identifier, and where one is needed but
    `end_token` is "never".
    """
    ids = identifier_ids(tokenizer, catalog, join)
    lengths = token_counts(ids)
    if end_token == "never" or (end_token == "auto" and lengths.min() == lengths.max()):
        refuse_beginnings(ids, catalog, "Export with --end-token auto, and a model that was trained to end them so")
        return Identifiers(ids, ItemTrie.build(ids), None)
    end = _end_id(tokenizer, f"{lengths.min()} to {lengths.max()}")
    inside = np.flatnonzero((ids == end).any(axis=1))
    if len(inside):
        names = [catalog.item_ids[item] for item in inside.tolist()]
        raise CatalogError(
            f"the identifiers of {len(names)} items hold the end token {tokenizer.eos_token!r} already: items "
            f"{some(names)}. It is put behind every identifier at export: leave it out of the index file, or export "
            "with --end-token never."
        )
    return Identifiers(ids, ItemTrie.build(ended(ids, end)), end)


def token_counts(ids: Int64) -> Int64:
    """[I] tokens of each identifier."""
    found = np.zeros(len(ids), np.int64)
    for column in ids.T:
        found += column != PAD
    return found


def ended(ids: Int64, end: int) -> Int64:
    """Identifiers [I, L] with the end token behind each, [I, L + 1]."""
    longer = np.pad(ids, ((0, 0), (0, 1)), constant_values=PAD)
    longer[np.arange(len(ids)), token_counts(ids)] = end
    return longer


def is_glued(catalog: Catalog, join: str, separator: str) -> bool:
    """Whether strings, or items, meet in a prompt as letters of one word do, so that its text does not show them."""
    table, strings = catalog.identifiers.table, catalog.identifiers.strings
    begins, ends = (np.array([text[at].isalnum() for text in strings]) for at in (0, -1))
    inside = [
        ends[before[after >= 0]] & begins[after[after >= 0]]
        for before, after in zip(table.T[:-1], table.T[1:], strict=True)
    ]
    last = table[np.arange(len(table)), catalog.identifiers.lengths - 1]
    between = bool(ends[last].any() and begins[table[:, 0]].any())
    return (any(map(np.any, inside)) and not join) or (between and not separator)


def adds_special(encode: Callable[[bool], Sequence[int]]) -> bool:
    """Whether a tokenizer's special tokens belong around a text: not where it begins with their first itself.

    encode: the text's ids, with the special tokens or without.
    """
    plain = [*encode(False)]
    return not plain or [plain[0], *plain] != [*encode(True)][: len(plain) + 1]


def warn_of_bos(tokenizer: Tokenizer, ids: Sequence[int], warn: Warn) -> None:
    """Tell of a bos that a prompt's ids hold more than once: written out, and put before the text as well."""
    bos = tokenizer.bos_token
    count = 0 if bos is None else [*ids].count(tokenizer.get_vocab().get(bos, PAD))
    if count > 1:
        times = "twice" if count == 2 else f"{count} times"
        warn(f"the prompt holds {bos} {times}: ids {[*ids]}. If the model was not trained so, write it once, or not")


def joined(catalog: Catalog, item: int, join: str) -> str:
    """An identifier as the text that prompts hold."""
    return join.join(catalog.identifiers[item])


def identifier_ids(tokenizer: Tokenizer, catalog: Catalog, join: str = "") -> Int64:
    """Token ids [I, L] of every item's identifier, `PAD` behind the shorter ones.

    Where every string of the catalog is a token of the vocabulary, these are the tokens' ids;
    otherwise (see `is_text`) what the tokenizer makes of an identifier's strings with `join` between them.
    Raises `CatalogError` where tokens are missing in the vocabulary, text is unknown to the
    tokenizer or comes out empty, or different identifiers are the same text or have the same ids.
    """
    _refuse_ambiguous(catalog, join)
    if is_text(tokenizer, catalog):
        return _text_ids(tokenizer, catalog, join)
    return catalog.token_ids(tokenizer.get_vocab())


def _refuse_ambiguous(catalog: Catalog, join: str) -> None:
    """Raise for identifiers of other strings that are the same text: a prompt cannot say which is meant."""
    # No string goes on as another (each with what joins them behind it): then a text can be read in one way alone.
    strings = [text + join for text in catalog.tokens]
    if catalog.length == 1 or not any(b.startswith(a) for a, b in pairwise(sorted(strings))):
        return
    owner: dict[str, tuple[str, ...]] = {}
    same = [(owner[text], own) for own in _distinct(catalog)[0] if owner.setdefault(text := join.join(own), own) != own]
    if same:
        raise CatalogError(
            f"different identifiers are the same text where their strings are joined by {join!r}: {some(same)}. Join "
            f"them by what the model was trained with (--join ' ' for example); {SHARE}"
        )


def is_text(tokenizer: Tokenizer, catalog: Catalog) -> bool:
    """Whether identifiers are text, several tokens a string, and not tokens of the vocabulary to look up.

    They are, where the vocabulary lacks some of the catalog's strings. Strings that were meant to be
    tokens must not be taken apart in silence: raises `CatalogError` where a string holds something
    like <a_47> that the vocabulary lacks, or where other strings are tokens that somebody added to it.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in catalog.tokens if token not in vocabulary]
    if not missing:
        return False
    meant = [token for token in missing if any(piece not in vocabulary for piece in _TOKEN.findall(token))]
    if meant:
        raise lacking(meant, len(catalog.tokens))
    added = sorted(tokenizer.get_added_vocab().keys() & set(catalog.tokens))
    missing = [token for token in missing if _TOKEN.sub("", token)]  # not tokens of the vocabulary in one string
    if added and missing:
        hint = f" (Others, such as {added[0]!r}, are added tokens. If the identifiers are text: one string each.)"
        raise lacking(missing, len(catalog.tokens), hint)
    return True


def _text_ids(tokenizer: Tokenizer, catalog: Catalog, join: str) -> Int64:
    """The tokenizer's ids [I, L] of the identifiers as text."""
    row, number = _distinct(catalog)
    texts = [join.join(identifier) for identifier in row]
    try:
        encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    except BaseException as error:  # the tokenizers library's own, of no better class
        if not is_fault(error):
            raise
        raise CatalogError(
            f"the identifiers are no tokens of the tokenizer's vocabulary, and it cannot take them apart as text, "
            f"{some(texts)}: {error}. Use the index file that the model was trained with."
        ) from None
    _refuse_unknown(tokenizer, texts, encoded)
    owner: dict[tuple[int, ...], tuple[str, ...]] = {}
    ids_of = zip(map(tuple, encoded), row, strict=True)
    same = [(owner[ids], identifier) for ids, identifier in ids_of if owner.setdefault(ids, identifier) != identifier]
    if same:
        raise CatalogError(
            f"different identifiers have the same ids in the tokenizer: {some(same)}; expected distinct ids. Tell them "
            f"apart by other words or a number; {SHARE}"
        )
    return padded(map(len, encoded), chain.from_iterable(encoded))[number]


def _distinct(catalog: Catalog) -> tuple[list[tuple[str, ...]], Int64]:
    """The distinct identifiers, in the order of the first items that have them; and the number of each item's [I]."""
    number, first = row_numbers(catalog.identifiers.table, len(catalog.identifiers.strings))
    return [catalog.identifiers[item] for item in first.tolist()], number


def _refuse_unknown(tokenizer: Tokenizer, texts: list[str], encoded: list[list[int]]) -> None:
    """Raise for text of which the tokenizer makes nothing, or a special token (<unk>) that it does not hold."""
    empty = [text for text, ids in zip(texts, encoded, strict=True) if not ids]
    if empty:
        raise CatalogError(
            f"the tokenizer makes no token of {len(empty)} identifiers: {some(empty)}; expected at least one. Use the "
            "index file that the model was trained with."
        )
    vocabulary = tokenizer.get_vocab()
    special = {vocabulary[token]: token for token in tokenizer.all_special_tokens if token in vocabulary}
    wrong = [
        (text, special[number])
        for text, ids in zip(texts, encoded, strict=True)
        for number in special.keys() & set(ids)
        if ids.count(number) > text.count(special[number])
    ]
    if wrong:
        raise CatalogError(
            f"the tokenizer does not know the text of {len(wrong)} identifiers: it writes {wrong[0][1]} into "
            f"{some([text for text, _ in wrong])}. Use the index file that the model was trained with."
        )


def _end_id(tokenizer: Tokenizer, lengths: str) -> int:
    """The eos token's id."""
    end = tokenizer.get_vocab().get(tokenizer.eos_token or "")
    if end is None:
        raise CatalogError(
            f"identifiers of {lengths} tokens are to end with the tokenizer's eos token, but it has none. Set "
            "tokenizer.eos_token to the token that the model was trained to end an identifier with and save the "
            "tokenizer, or export with --end-token never (where no identifier is the beginning of another)."
        )
    return end


def refuse_beginnings(ids: Int64, catalog: Catalog, remedy: str) -> None:
    """Raise where one identifier is the beginning of another: in sorted order, of the next one."""
    if (ids[:, -1] != PAD).all():
        return  # of one length
    rows, item = np.unique(ids, axis=0, return_index=True)
    begins = np.flatnonzero(((rows[:-1] == rows[1:]) | (rows[:-1] == PAD)).all(axis=1))
    if len(begins):
        names = [(catalog.item_ids[item[at]], catalog.item_ids[item[at + 1]]) for at in begins]
        raise CatalogError(
            f"{len(begins)} identifiers are the beginning of others (items {some(names)}), so that a search cannot "
            f"tell where they end. {remedy}."
        )
