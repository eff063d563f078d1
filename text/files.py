"""Generation over prompt files: a request of each prompt, and what is written of its text."""

from collections.abc import Iterator
from typing import final

import msgspec

from ..catalog.errors import OptionError, PromptError
from ..catalog.records import Reject, RejectLine
from ..runtime.runs.windows import BATCHES_PER_WINDOW, Job, Outcomes
from ..runtime.types import RequestFailure
from .generator import MAX_NEW_TOKENS, TextGenerator
from .prompts import Prompt
from .types import Finish, Text, TextRequest, TextStats


class TextLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the output: what `specbeam build-pool` reads, too."""

    id: str
    line: int  # of the prompt in its file
    text: str
    finish: Finish
    tokens: int  # that were written, the end token included
    group: str | None = None
    stats: TextStats | None = None


@final
class Generation(Job[Prompt, TextRequest, Text, Outcomes]):
    """A text for each prompt."""

    def __init__(
        self, generator: TextGenerator, *, max_new_tokens: int = MAX_NEW_TOKENS, stats: bool = False, ahead: bool = True
    ) -> None:
        """max_new_tokens: for prompts that do not say it themselves. ahead: read many prompts, so that those of one
        length share a batch; otherwise a batch at a time."""
        self.ahead = generator.batch_size * (BATCHES_PER_WINDOW if ahead else 1)
        self._generator, self._max_new_tokens, self._stats = generator, max_new_tokens, stats

    def counts(self) -> Outcomes:
        return Outcomes()

    def encode(self, entry: Prompt | Reject, counts: Outcomes) -> TextRequest | Reject:
        if isinstance(entry, Reject):
            return entry
        limit = entry.max_new_tokens or self._max_new_tokens
        try:
            return self._generator.encode(entry.text, max_new_tokens=limit, id=entry.id, group=entry.group)
        except (OptionError, PromptError) as error:
            return Reject(entry.line, str(error), entry.raw, entry.source)

    def batches(self, requests: list[TextRequest]) -> Iterator[dict[int, Text | RequestFailure]]:
        return self._generator.batches(requests)

    def line(self, entry: Prompt, answer: Text, counts: Outcomes) -> TextLine:
        stats = answer.stats if self._stats else None
        return TextLine(entry.id, entry.line, answer.text, answer.finish, len(answer.tokens), entry.group, stats)

    def failed(self, entry: Prompt, reason: str) -> RejectLine:
        return RejectLine(entry.source, entry.line, reason, entry.raw)
