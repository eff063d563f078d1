"""Generation over prompt files: a stream of prompts in, one JSON line a text out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import msgspec

from ..catalog.errors import OptionError, PromptError
from ..catalog.records import Reject
from ..runtime.files import BATCHES_PER_WINDOW, Outcomes, RejectLine
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


@dataclass
class GenerateCounts(Outcomes):
    """What happened to the prompts of one run."""

    written: int = 0
    kept: int = 0  # texts of earlier runs


def generate(
    generator: TextGenerator,
    prompts: Iterable[Prompt | Reject],
    counts: GenerateCounts,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    there: Callable[[int], bool] = lambda line: False,
    stats: bool = False,
    in_order: bool = False,
    progress: Callable[[int], None] = lambda written: None,
) -> Iterator[TextLine | RejectLine]:
    """Write a text for a stream of prompts. Yields texts as they are finished, and rejects as they are met.

    max_new_tokens: for prompts that do not say it themselves. there: whether the text of a line is there already.
    in_order: batch by batch, in the order of the prompts; otherwise many are read ahead, so that those of one length
    share a batch. A prompt for which the engine gives no numbers becomes a reject, too; where whole batches do,
    `counts.stopped` is set and the others are not tried. `progress` is told how many prompts are done.
    """
    prompts = iter(prompts)
    ahead = generator.batch_size * (1 if in_order else BATCHES_PER_WINDOW)
    while window := list(islice(prompts, ahead)):
        asked: list[tuple[Prompt, TextRequest]] = []
        for entry in window:
            if isinstance(entry, Prompt) and there(entry.line):
                counts.kept += 1
                continue
            request = entry if isinstance(entry, Reject) else _encode(generator, entry, max_new_tokens)
            if isinstance(request, Reject):
                counts.rejected += 1
                yield RejectLine(request.source, request.line, request.reason, request.raw)
            else:
                assert isinstance(entry, Prompt)
                asked.append((entry, request))
        for batch in generator.batches([request for _, request in asked]):
            counts.see(batch.values())
            for number in sorted(batch) if in_order else batch:
                entry, text = asked[number][0], batch[number]
                if isinstance(text, RequestFailure):
                    yield RejectLine(entry.source, entry.line, text.reason, entry.raw)
                    continue
                counts.written += 1
                yield _line(entry, text, stats)
            progress(counts.written + counts.failed + counts.kept)
            if counts.stopped:
                return


def _encode(generator: TextGenerator, entry: Prompt, max_new_tokens: int) -> TextRequest | Reject:
    try:
        return generator.encode(
            entry.text, max_new_tokens=entry.max_new_tokens or max_new_tokens, id=entry.id, group=entry.group
        )
    except (OptionError, PromptError) as error:
        return Reject(entry.line, str(error), entry.raw, entry.source)


def _line(entry: Prompt, text: Text, stats: bool) -> TextLine:
    return TextLine(
        entry.id, entry.line, text.text, text.finish, len(text.tokens), entry.group, text.stats if stats else None
    )
