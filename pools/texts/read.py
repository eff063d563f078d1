"""Earlier texts from files of JSON lines, and as tokens."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, starmap
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from ...catalog.errors import PoolError
from ...catalog.records import Record, Reject, read_files
from .sources import AnyTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EXPECTED = 'expected {"id": "u1", "text": "..."}, the id being a string or an integer'
BATCH = 1024  # texts that the tokenizer is given at once


class TextLine(msgspec.Struct, frozen=True):
    """One line of a file of texts, such as `specbeam generate` writes; other keys are ignored."""

    id: str | int
    text: str
    finish: str = "end"  # why the text ends; only behind "end" stands an end token


class Text(NamedTuple):
    """An earlier text as tokens, its end token included."""

    id: str
    tokens: AnyTokens


def read_texts(paths: Sequence[Path], stdin: IO[bytes] | None = None) -> Iterator[TextLine | Reject]:
    """Stream the texts of files, and a `Reject` for every line that is none; "-" is `stdin`.

    Raises `PoolError`, before anything is read, for a missing file.
    """
    return starmap(_usable, read_files(paths, TextLine, EXPECTED, PoolError, stdin))


def _usable(name: str, record: Record[TextLine] | Reject) -> TextLine | Reject:
    if isinstance(record, Reject) or record.content.text:
        return record if isinstance(record, Reject) else record.content
    return Reject(record.line, "the text is empty; expected some text", record.raw, name)


def encode(lines: Iterable[TextLine], tokenizer: "Tokenizer", end: int | None) -> Iterator[Text]:
    """Texts as tokens, without the tokenizer's special ones; `end` behind those that say no other reason to end."""
    lines = iter(lines)
    while batch := list(islice(lines, BATCH)):
        encoded = tokenizer.encode_batch_fast([line.text for line in batch], add_special_tokens=False)
        for line, encoding in zip(batch, encoded, strict=True):
            tail = [end] if end is not None and line.finish == "end" else []
            yield Text(str(line.id), np.array(encoding.ids + tail, np.uint32))
