"""Generation over prompt files: a request of each prompt, and what is written of its text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import msgspec

from ..catalog.errors import OptionError, PromptError
from ..catalog.records import Reject, RejectLine
from ..engines.bundle.texts import TextBundle
from ..pools.texts.branches import TextDrafting
from ..runtime.options import Batching, EngineChoice
from ..runtime.runs.windows import BATCHES_PER_WINDOW, Job, Outcomes
from ..runtime.types import RequestFailure
from .generator import MAX_NEW_TOKENS, TextGenerator
from .prompts import Prompt
from .stats import GenerationStats
from .types import Finish, Text, TextRequest, TextStats, TextVerification


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

    @property
    def stats(self) -> GenerationStats:
        """Of all texts that were written."""
        return self._generator.stats

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


@dataclass(frozen=True)
class Generating:
    """What writes texts, as it crosses to a process that opens it there; see `TextGenerator.open`."""

    bundle: Path
    engine: EngineChoice
    pool: Path | None
    drafting: TextDrafting | None
    live: bool
    speculation: Literal["auto", "fixed"] | None
    verification: TextVerification
    stop: tuple[str, ...]
    batching: Batching
    max_new_tokens: int
    stats: bool

    def opened(self, bundle: TextBundle | None = None) -> TextGenerator:
        """Open it. bundle: where that is open already."""
        return TextGenerator.open(
            bundle or self.bundle, engine=self.engine, pool=self.pool, drafting=self.drafting, live=self.live,
            speculation=self.speculation, verification=self.verification, stop=self.stop, batching=self.batching,
        )  # fmt: skip

    def job(self, generator: TextGenerator, *, ahead: bool = True) -> Generation:
        """What a run does with it, once it is open."""
        return Generation(generator, max_new_tokens=self.max_new_tokens, stats=self.stats, ahead=ahead)

    def anywhere(self) -> "Generating":
        """The same with absolute paths: for another folder, or another machine that has the same ones."""
        pool = None if self.pool is None else self.pool.absolute()
        return replace(self, bundle=self.bundle.absolute(), pool=pool)

    def jobs(self, warn: Callable[[str], None]) -> Callable[[], Generation]:
        """Open it, for one partition at a time: see `partition.Opens`. Texts draft for later ones of a partition."""
        generator = self.opened()
        return lambda: self.job(generator.afresh())
