"""What a catalog's strings are in a model's tokens, as its export has fixed it: for later catalogs of that model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .errors import CatalogError
from .identifiers import Identifiers, ended, refuse_beginnings
from .items import Catalog, padded, some
from .trie import PAD, Int64, ItemTrie, blocks


class UnknownTokens(CatalogError):
    """Items have identifiers of strings that the model has no columns for; `items`: all of them, with the strings."""

    def __init__(self, items: Sequence[tuple[str, tuple[str, ...]]], what: str) -> None:
        shown = [f"{item} ({' '.join(strings)})" for item, strings in items]
        super().__init__(
            f"{len(items)} items have {what} that the model does not know: {some(shown)}. Leave them out, or export a "
            "model that was trained with them."
        )
        self.items = tuple(items)


@dataclass(frozen=True, eq=False)
class Spelling:
    """How identifiers are spelled. A bundle has no tokenizer: what its own catalog shows is all that is known.

    Where every string is one token, identifiers may be put together anew of these strings. Text that a tokenizer has
    taken apart is known by whole identifiers only.
    """

    vocabulary: Int64  # [C] the columns of log-probabilities
    end_token: int | None  # behind every identifier that is generated
    length: int  # L: tokens of the longest identifier, the end token included
    tokens: Mapping[str, int] | None  # of every string; None: text
    texts: Mapping[tuple[str, ...], tuple[int, ...]]  # of whole identifiers, where they are text

    @classmethod
    def of(cls, catalog: Catalog, trie: ItemTrie, end_token: int | None) -> "Spelling":
        """What the catalog of a bundle shows."""
        end, codes = int(end_token is not None), catalog.identifiers
        lengths = trie.depth[trie.leaf_of] - end
        tokens: dict[str, int] | None = None
        texts: dict[tuple[str, ...], tuple[int, ...]] = {}
        if (codes.lengths == lengths).all():
            token = np.full(len(codes.strings), PAD)
            for part in blocks(len(lengths)):
                strings = codes.table[part]
                ids = trie.item_tokens(np.arange(part.start, part.stop))[:, : strings.shape[1]]
                token[strings[strings != PAD]] = ids[strings != PAD]
            tokens = dict(zip(codes.strings, token.tolist(), strict=True))
        else:
            rows = zip(codes, trie.item_tokens().tolist(), lengths.tolist(), strict=True)
            texts = {identifier: tuple(row[:length]) for identifier, row, length in rows}
        return cls(trie.vocabulary, end_token, trie.length, tokens, texts)

    def compile(self, catalog: Catalog) -> Identifiers:
        """Another catalog's identifiers and their trie, on this vocabulary, whichever tokens of it they use.

        Raises `UnknownTokens`, and `CatalogError` for identifiers that are too long, or the beginning of others where
        there is no end token.
        """
        self._refuse_unknown(catalog)
        self._refuse_long(catalog)
        if self.tokens is not None:
            ids = catalog.token_ids(self.tokens)
        else:
            rows = [self.texts[identifier] for identifier in catalog.identifiers]
            ids = padded(map(len, rows), chain.from_iterable(rows))
        if self.end_token is None:
            refuse_beginnings(ids, catalog, "Give them identifiers of one length")
        generated = ids if self.end_token is None else ended(ids, self.end_token)
        return Identifiers(ids, ItemTrie.build(generated).on(self.vocabulary), self.end_token)

    def _refuse_unknown(self, catalog: Catalog) -> None:
        each = zip(catalog.item_ids, catalog.identifiers, strict=True)
        if self.tokens is None:
            unknown = [(item, identifier) for item, identifier in each if identifier not in self.texts]
            if unknown:
                raise UnknownTokens(unknown, "identifiers (text, of which a bundle keeps no tokenizer)")
            return
        missing = {token for token in catalog.tokens if token not in self.tokens}
        if missing:
            named = [(item, tuple(t for t in identifier if t in missing)) for item, identifier in each]
            raise UnknownTokens([(item, tokens) for item, tokens in named if tokens], "tokens")

    def _refuse_long(self, catalog: Catalog) -> None:
        """Before an array is made that is as wide as the longest; a known text never is too long."""
        most = self.length - int(self.end_token is not None)
        if self.tokens is not None and catalog.length > most:
            long = [catalog.item_ids[item] for item in np.flatnonzero(catalog.identifiers.lengths > most).tolist()]
            raise CatalogError(
                f"{len(long)} items have identifiers of more than {most} tokens, the most that this bundle was "
                f"exported for: {some(long)}. Shorten them, or export the model with the new catalog."
            )
