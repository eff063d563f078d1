"""Helpers for tests of the command line: running it, and the files it reads and writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from specbeam.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def good(*arguments: object) -> Result:
    """Run a command that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def bad(*arguments: object) -> str:
    """Run a command that must fail with a message: what it printed on standard error, white space evened out."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    message = " ".join(result.stderr.split())
    assert "Error: " in message
    return message


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *entries: object) -> Path:
    """A JSON lines file; strings are written as they are."""
    path.write_text("".join(f"{entry if isinstance(entry, str) else json.dumps(entry)}\n" for entry in entries))
    return path


def user(name: str | int, *items: str | int) -> dict[str, Any]:
    return {"user": name, "items": list(items)}


def same_items(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Whether two ranked lists are the same, their scores within rounding."""

    def named(items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [(item["item"], item["title"], tuple(item["identifier"])) for item in items]

    scores = pytest.approx([item["score"] for item in expected], abs=1e-4)
    return named(got) == named(expected) and [item["score"] for item in got] == scores


def only(output: Path) -> None:
    """Nothing of a failed run is left: no output, no rejects, no temporary file of either."""
    assert [path.name for path in output.parent.iterdir() if path.name.lstrip(".").startswith(output.name)] == []
