"""Item histories as token sequences: the prompts that export compiles, and the answers to be learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ...catalog.errors import SpecBeamError
from ...catalog.identifiers import EndToken, Identifiers, Tokenizer, Warn, compile_identifiers
from ...catalog.items import Catalog
from ...catalog.prompts.compile import compile_prompt
from ...catalog.prompts.encoder import PromptEncoder, PromptSpec
from ...catalog.prompts.options import PromptOptions
from ...catalog.trie import PAD
from .order import Samples

Int64 = NDArray[np.int64]
Row = tuple[Int64, Int64]  # token ids [T] and labels [T]
IGNORED = -100  # the label of a position that has no part in the loss


@dataclass(frozen=True, eq=False)
class Format:
    """How histories of catalog positions become token sequences."""

    spec: PromptSpec
    identifiers: Identifiers

    @classmethod
    def compile(
        cls, tokenizer: Tokenizer, catalog: Catalog, options: PromptOptions, warn: Warn = lambda text: None
    ) -> "Format":
        """Raises `CatalogError` or `PromptError`, and warns, as export does."""
        spec = compile_prompt(tokenizer, catalog, options, warn)
        return cls(spec, compile_identifiers(tokenizer, catalog, options.end_token, options.join))

    def recorded(self, options: PromptOptions) -> dict[str, Any]:
        """What is written of the prompt beside the weights: see `export.trained`. Another catalog may end otherwise."""
        end: EndToken = "never" if self.identifiers.end_token is None else "always"
        return {"prompt": replace(options, end_token=end), "compiled": self.spec}

    @property
    def packed(self) -> bool:
        """Whether any item of a sequence stands as an answer stands: right behind the items before it, to its end."""
        return not (self.spec.separator_ids or self.spec.suffix_ids or self.identifiers.end_token is not None)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        width, gap = self.identifiers.tokens.shape[1], len(self.spec.separator_ids)
        frame = len(self.spec.prefix_ids) + len(self.spec.suffix_ids)
        return int(frame + self.spec.history_length * (width + gap) - gap + self.identifiers.trie.length)

    @property
    def window(self) -> int:
        """Items of the longest prompt with its answer."""
        return self.spec.history_length + 1

    @cached_property
    def _encoder(self) -> PromptEncoder:
        return PromptEncoder(self.spec, self.identifiers.tokens, self.longest)

    def sequence(self, items: Int64, known: int) -> Row:
        """A packed sequence; the first `known` items are not learned."""
        prefix = np.array(self.spec.prefix_ids, np.int64)
        tokens = self.identifiers.tokens[items]
        labels = np.where(np.arange(len(items))[:, None] < known, IGNORED, tokens)
        inside = tokens != PAD
        return np.concatenate((prefix, tokens[inside])), np.concatenate((np.full_like(prefix, IGNORED), labels[inside]))

    def answer(self, history: Int64, item: int) -> Row:
        """A prompt and its answer, which alone is learned."""
        prompt = self._encoder.encode(history).ids
        tokens = self.identifiers.tokens[item]
        end = self.identifiers.end_token
        answer = np.concatenate((tokens[tokens != PAD], [] if end is None else [end])).astype(np.int64)
        return np.concatenate((prompt, answer)), np.concatenate((np.full_like(prompt, IGNORED), answer))


class PackedHistories(Samples):
    """One sequence a history; of a long history, another window in every epoch.

    Its first item is learned, too: no prompt asks for it, but it teaches what identifiers there are (in
    the demo's three paired runs, validation losses were lower than without).
    """

    def __init__(self, histories: Sequence[Int64], form: Format, seed: int) -> None:
        self._histories = [history for history in histories if len(history) > 1]
        self._form, self._seed, self._epoch = form, seed, 0

    def __len__(self) -> int:
        return len(self._histories)

    def __getitem__(self, index: int) -> Row:
        history, window = self._histories[index], self._form.window
        spare = len(history) - window
        if spare > 0:
            start = int(np.random.default_rng([self._seed, self._epoch, index]).integers(spare + 1))
            history = history[start : start + window]
        return self._form.sequence(history, known=0)

    def lengths(self) -> Int64:
        return np.minimum([len(history) for history in self._histories], self._form.window).astype(np.int64)

    def begin(self, epoch: int) -> None:
        self._epoch = epoch


class Answers(Samples):
    """One sequence for every item that follows another: the prompt before it, and the item as the answer."""

    def __init__(self, histories: Sequence[Int64], form: Format) -> None:
        self._histories, self._form = histories, form
        counts = np.array([max(len(history) - 1, 0) for history in histories], np.int64)
        self._ends = np.cumsum(counts)
        self._first = self._ends - counts

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Row:
        user = int(np.searchsorted(self._ends, index, side="right"))
        place = index - int(self._first[user]) + 1
        history = self._histories[user]
        return self._form.answer(history[:place], int(history[place]))

    def lengths(self) -> Int64:
        places = np.concatenate([np.arange(1, len(history)) for history in self._histories])
        capped: Int64 = np.minimum(places, self._form.spec.history_length)
        return capped


def training_samples(histories: Sequence[Int64], form: Format, seed: int, *, packed: bool) -> Samples:
    """What there is to learn from histories: one sequence each (`packed`), or one for every item that follows another.

    Raises `SpecBeamError` where no item does.
    """
    samples = PackedHistories(histories, form, seed) if packed else Answers(histories, form)
    if not len(samples):
        raise SpecBeamError(
            f"Of {len(histories)} training histories none has two items; expected histories in which an item follows "
            "another."
        )
    return samples


def held_out_rows(pairs: Sequence[tuple[Int64, Int64]], form: Format, *, packed: bool) -> list[Row]:
    """Sequences of held-out users, (history, labels) each; nothing but labels is to be predicted."""
    if not packed:
        return [
            form.answer(np.concatenate((history, labels[:place])), int(item))
            for history, labels in pairs
            for place, item in enumerate(labels)
        ]
    rows = []
    for history, labels in pairs:
        items = np.concatenate((history, labels))[-form.window :]
        rows.append(form.sequence(items, known=max(len(items) - len(labels), 1)))
    return rows
