"""Prompt files: JSON lines in, requests out, and a reject for every line that cannot be used."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import msgspec

from ..catalog.errors import PromptError
from ..catalog.records import Reject, read_records

STDIN = Path("-")
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
    if path == STDIN:
        yield from _prompts(str(path), stdin or sys.stdin.buffer)
        return
    if path.is_dir() or not path.exists():
        got = "is a directory" if path.exists() else "does not exist"
        raise PromptError(f"{path}: {got}; expected a file of prompts. Check the path.")
    with path.open("rb") as file:
        yield from _prompts(str(path), file)


def _prompts(name: str, file: IO[bytes]) -> Iterator[Prompt | Reject]:
    for record in read_records(name, file, _Entry, EXPECTED):
        if isinstance(record, Reject):
            yield record
            continue
        entry = record.content
        group = None if entry.group is None else str(entry.group)
        yield Prompt(str(entry.id), entry.prompt, record.line, record.raw, name, group, entry.max_new_tokens)
