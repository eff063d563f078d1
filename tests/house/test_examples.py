"""The scripts in examples/ run as they are and print what they promise."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import user, write
from specbeam.engines.build import build_engine
from specbeam.export.text import export_text
from tiny_bundle import Tiny
from tiny_models import make_text_tokenizer, tiny_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
Example = Callable[..., list[str]]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Run a script of examples/ as `python examples/NAME.py ARGUMENTS` does: the lines that it prints."""

    def run(name: str, *arguments: object) -> list[str]:
        path = str(EXAMPLES / f"{name}.py")
        monkeypatch.setattr("sys.argv", [path, *map(str, arguments)])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    export_text(tiny_checkpoint(folder / "checkpoint", tokenizer=make_text_tokenizer(), tied=True), folder / "bundle")
    build_engine(folder / "bundle")
    return folder / "bundle"


def after(lines: list[str], beginning: str) -> str:
    """The rest of the one line that begins so."""
    (line,) = [line for line in lines if line.startswith(beginning)]
    return line.removeprefix(beginning)


def items(lines: list[str], name: str) -> list[str]:
    """The items of the list of that name."""
    return after(lines, f"{name}: ").partition(" (")[0].split(", ")


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_an_example_is_short_and_has_a_test(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 40
    assert f'example("{script.stem}"' in Path(__file__).read_text()


def test_recommend(example: Example, tiny: Tiny, tmp_path: Path) -> None:
    alone = example("recommend", tiny.bundle)
    assert alone[0].startswith("somebody: ")
    assert [line.split(".")[0].strip() for line in alone[1:]] == ["1", "2", "3", "4", "5"]
    assert {line.split()[1] for line in alone[1:]} <= set(tiny.item_ids)
    scores = [float(line.rsplit(maxsplit=1)[1]) for line in alone[1:]]
    assert scores == sorted(scores, reverse=True)
    histories = write(tmp_path / "histories.jsonl", user("u1", "3", "4"), user("u2", *tiny.item_ids[:3]))
    listed = example("recommend", tiny.bundle, histories)
    assert [line.split(":")[0] for line in listed if line[0] != " "] == ["u1", "u2"]
    assert listed[-5:] == alone[-5:]


def test_filters(example: Example, tiny: Tiny) -> None:
    lines = example("filters", tiny.bundle)
    everything = items(lines, "everything")
    assert len(set(everything)) == 5
    assert everything[0] not in items(lines, f"without {everything[0]}")
    assert set(items(lines, "what is in stock")) == set(tiny.item_ids[-4:])
    assert "(only 4 are allowed)" in after(lines, "what is in stock")
    assert not set(items(lines, "nothing the user has")) & set(tiny.item_ids[:3])


def test_sampling(example: Example, tiny: Tiny) -> None:
    lines = example("sampling", tiny.bundle)
    ann, bob, later = (items(lines, who) for who in ("ann, seed 11", "bob, seed 11", "ann, seed 12"))
    assert all(len(set(drawn)) == 5 for drawn in (ann, bob, later))
    assert len({tuple(ann), tuple(bob), tuple(later)}) == 3
    assert after(lines, "the same without a draft: ") == "True"


def test_own_pool(example: Example, tiny: Tiny) -> None:
    lines = example("own_pool", tiny.bundle)
    assert lines[0] == f"a pool of {len(tiny.item_ids)} items from {len(tiny.item_ids) - 3} histories"
    assert len(items(lines, "items")) == 5
    assert after(lines, "the same without the pool: ") == "True"
    drafted, plain = map(int, after(lines, "calls of the target: ").split(" instead of "))
    assert 1 <= drafted <= plain
    assert after(lines, "calls of a draft model: ") == "0"


def test_text(example: Example, text_bundle: Path) -> None:
    lines = example("text", text_bundle, "a desk lamp, walnut", "kettle")
    assert lines[0].startswith("'a desk lamp, walnut' -> ")
    assert lines[2].startswith("'kettle' -> ")
    for line in lines[1], lines[3]:
        tokens, calls = int(line.split()[0]), int(line.split()[3])
        assert 1 <= calls <= tokens <= 24
    assert after(lines, "the same as greedy decoding: ") == "True"


def test_serving(example: Example, tiny: Tiny) -> None:
    lines = example("serving", tiny.bundle)
    answered = [line for line in lines if "in a batch of" in line]
    assert len(answered) == min(8, len(tiny.item_ids))
    assert all(line.endswith("model 1, catalog 1") for line in answered)
    assert len(set(after(lines, "drawn: ").split())) == 3
    assert len(set(after(lines, "submitted: ").split())) == 3
    assert after(lines, "arrays: ").endswith("float32 (1, 3)")
