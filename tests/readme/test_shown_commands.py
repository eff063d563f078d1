"""The commands that the README and the docs show can be typed: their verbs, options and values exist."""

import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import pytest

from commands import good
from places import ROOT
from specbeam.cli import main

PAGES = [
    *(path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/*/*.md")),
    *sorted(ROOT.glob("benchmarks/*.md")),
]
OURS = (["specbeam"], ["python", "cli.py"])


def shown(page: Path) -> Iterator[list[str]]:
    """The words of every command in a page's code blocks: one a line, or joined by `&&`."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(specbeam|python|make)\s", line):
                words = shlex.split(line, comments=True)
                while "&&" in words:
                    yield words[: words.index("&&")]
                    words = words[words.index("&&") + 1 :]
                yield words


COMMANDS = [(page, words) for page in PAGES for words in shown(page)]


def verb_lines() -> dict[str, list[str]]:
    found = {}
    for page, words in COMMANDS:
        for ours in OURS:
            if words[: len(ours)] == ours:
                found[f"{page.name}: {shlex.join(words)}"] = words[len(ours) :]
    return found


def script_lines() -> dict[str, list[str]]:
    """What is run by Python from the repository, `cli.py` left out."""
    return {
        f"{page.name}: {shlex.join(words)}": words[1:]
        for page, words in COMMANDS
        if words[0] == "python" and words[1] != "cli.py"
    }


def test_the_pages_show_commands() -> None:
    assert len(verb_lines()) > 20
    assert {page.name for page, _ in COMMANDS} >= {"README.md", "engines.md", "pools.md"}


@pytest.mark.parametrize("words", verb_lines().values(), ids=verb_lines())
def test_a_verb_takes_what_is_shown(words: list[str]) -> None:
    """Parsed, values included, as far as no file has to be there; nothing is run."""
    command, words = main.commands[words[0]], words[1:]
    if isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    context = click.Context(command, info_name=command.name, parent=click.Context(main, **main.context_settings))
    values, left, _ = command.make_parser(context).parse_args(list(words))
    assert not left
    for parameter in command.params:
        value = values.get(parameter.name or "")
        given = value is not None or parameter.envvar is not None  # which the page sets before
        assert given or not parameter.required, f"{parameter.name} is missing"
        if value is not None and not isinstance(parameter.type, click.Path | click.File):
            parameter.type_cast_value(context, value)


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_every_verb_explains_itself(verb: str) -> None:
    assert f" {verb} [OPTIONS]" in good(verb, "--help").output


@pytest.mark.parametrize("words", script_lines().values(), ids=script_lines())
def test_a_script_takes_what_is_shown(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words[0] == "-m", "scripts of the repository are run as modules"
    monkeypatch.setattr(sys, "argv", [words[1], "--help"])
    monkeypatch.delitem(sys.modules, words[1], raising=False)  # which another test may have imported
    monkeypatch.setattr(sys, "path", [*sys.path])
    with mock.patch.dict(os.environ), pytest.raises(SystemExit) as ended:
        runpy.run_module(words[1], run_name="__main__")
    assert ended.value.code == 0
    options = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", capsys.readouterr().out))
    assert {word for word in words[2:] if word.startswith("-")} <= options


@pytest.mark.parametrize("target", sorted({words[1] for _, words in COMMANDS if words[0] == "make"}))
def test_make_knows_the_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
