"""Prompt files: JSON lines in, requests out, and a reject for every line that cannot be used."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import IO, Annotated

import msgspec

from ..catalog.errors import PromptError
from ..catalog.packed import refuse_packed
from ..catalog.records import Record, Reject, beginning, read_files, read_records

EXPECTED = (
    'expected {"id": "u1", "prompt": "..."}, the id being a string or an integer (and if wanted "group": "3", '
    '"max_new_tokens": 100)'
)


class _Entry(msgspec.Struct):
    """A prompt as JSON; other keys are ignored."""

    id: str | int
    prompt: str
    group: str | int | None = None
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file."""

    id: str
    text: str
    line: int  # counted from 1
    raw: str
    source: str  # the file's name
    group: str | None = None  # whose pool drafts, where it is not the id's
    max_new_tokens: int | None = None


def read_prompts(path: Path, stdin: IO[bytes] | None = None) -> Iterator[Prompt | Reject]:
    """Stream a file of prompts; "-" is `stdin` (by default the process's own).

    Raises `PromptError` where there is no such file.
    """
    return starmap(_usable, read_files([path], _Entry, EXPECTED, PromptError, stdin))


def prompts_of(name: str, file: IO[bytes]) -> Iterator[Prompt | Reject]:
    """As `read_prompts`, of a file that is open."""
    refuse_packed(name, beginning(file), PromptError)
    return (_usable(name, record) for record in read_records(name, file, _Entry, EXPECTED))


def _usable(name: str, record: Record[_Entry] | Reject) -> Prompt | Reject:
    if isinstance(record, Reject):
        return record
    entry = record.content
    group = None if entry.group is None else str(entry.group)
    return Prompt(str(entry.id), entry.prompt, record.line, record.raw, name, group, entry.max_new_tokens)
