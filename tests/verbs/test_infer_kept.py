"""infer: what one run learns of drafts is where the next one begins."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import good, lines, same_items, user, write
from specbeam.catalog.user_cache import OFF, VARIABLE
from specbeam.runtime import Drafting, EngineChoice, Recommender
from specbeam.runtime.chosen import Chosen
from specbeam.runtime.planning import budget
from specbeam.runtime.planning.kept import ENDING
from specbeam.runtime.planning.planner import Planner
from tiny_bundle import Tiny, edit_engine

BEGAN = "auto began with what earlier runs found"
ONE = ["--threads", 1, "--batch-size", 2, "-k", 5]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that is not there yet; and planning takes as long as it likes, however busy the machine is."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(budget, "FIRST_PLANS", 1e6)
    return tmp_path / "cache"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path / "many.jsonl", *(user(f"u{i}", *((i * j) % 40 for j in range(1, 9))) for i in range(40)))


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob(f"*{ENDING}"))


def infer(bundle: Path, source: Path, output: Path, *options: object) -> str:
    return good("infer", bundle, source, "-o", output, "--overwrite", *ONE, *options).output


def test_another_process_begins_where_the_first_ended(tiny: Tiny, many: Path, output: Path, cache: Path) -> None:
    told = infer(tiny.bundle, many, output, "--stats")
    assert BEGAN not in told
    (file,) = files(cache)
    first = lines(output)
    command = [sys.executable, "-m", "specbeam.cli", "infer", tiny.bundle, many, "-o", output, "--overwrite", *ONE]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (said,) = (line for line in done.stdout.splitlines() if BEGAN in line)
    assert str(file) in said
    assert files(cache) == [file]
    assert all(same_items(one["items"], two["items"]) for one, two in zip(first, lines(output), strict=True))


def test_it_plans_by_it(tiny: Tiny, many: Path, output: Path, cache: Path) -> None:
    infer(tiny.bundle, many, output)
    cold, warm = (
        Recommender.open(tiny.bundle, engine=EngineChoice(threads=1), drafting=Drafting(keep=keep)).planning
        for keep in (False, True)
    )
    assert isinstance(cold, Planner)
    assert isinstance(warm, Planner)
    assert cold.acceptance.requests(5) == 0 < warm.acceptance.requests(5)
    assert cold.rationale(1, 20, 5) != warm.rationale(1, 20, 5)
    assert not cold.tuned
    assert not warm.tuned


def test_from_python_nothing_is_kept_unless_it_is_asked_for(
    tiny: Tiny, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = [["1", str(i)] for i in range(20)]
    cold = Recommender.open(tiny.bundle, batching=1)
    cold.recommend(histories, 5)
    assert cold.keep() == ""
    assert not cache.exists()
    keeping = Recommender.open(tiny.bundle, batching=1, drafting=Drafting(keep=True))
    keeping.recommend(histories, 5)
    assert keeping.keep() == ""
    assert len(files(cache)) == 1
    monkeypatch.setenv(VARIABLE, OFF)
    assert Chosen.of(tiny.bundle, drafting=Drafting(keep=True)).memory is None


def test_other_planners_begin_anew(tiny: Tiny, bundle: Path, many: Path, output: Path, cache: Path) -> None:
    for option in ([], ["--scoring", "constrained"], ["--threads", 2], ["--verify", "sampled"]):
        assert BEGAN not in infer(bundle, many, output, *option)
    assert len(files(cache)) == 4
    assert BEGAN in infer(bundle, many, output)
    edit_engine(bundle, lambda facts: facts["roles"]["target"]["latency"][0].update(milliseconds=9.0))
    assert BEGAN not in infer(bundle, many, output)
    assert BEGAN in infer(tiny.bundle, many, output)  # a copy of the same
    for option in (["--speculation", "fixed"], ["--drafter", "none"]):
        assert BEGAN not in infer(tiny.bundle, many, output, *option)
    assert len(files(cache)) == 5


def test_workers_learn_together(tiny: Tiny, many: Path, output: Path, cache: Path) -> None:
    assert BEGAN not in infer(tiny.bundle, many, output, "--workers", 2)
    assert len(files(cache)) == 1
    assert BEGAN in infer(tiny.bundle, many, output)


def test_a_bundle_that_cannot_be_written(tiny: Tiny, many: Path, output: Path, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.bundle.rglob("*")}
    infer(tiny.bundle, many, output)
    assert BEGAN in infer(tiny.bundle, many, output)
    assert before == {path: path.stat().st_mtime_ns for path in tiny.bundle.rglob("*")}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cache_that_cannot_be_written(
    tiny: Tiny, many: Path, output: Path, cache: Path, tmp_path: Path, workers: int
) -> None:
    cache.write_text("a file")
    told = infer(tiny.bundle, many, output, "--workers", workers)
    assert told.count("is not kept for the next run") == 1
    assert len(lines(output)) == 40
    assert cache.read_text() == "a file"


def test_a_damaged_file(tiny: Tiny, many: Path, output: Path, cache: Path) -> None:
    infer(tiny.bundle, many, output)
    (file,) = files(cache)
    file.write_bytes(file.read_bytes()[:-30])
    told = infer(tiny.bundle, many, output)
    assert told.count("is not used") == 1
    assert BEGAN not in told
    assert BEGAN in infer(tiny.bundle, many, output)


def test_turned_off(tiny: Tiny, many: Path, output: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, OFF)
    monkeypatch.chdir(output.parent)
    for _ in range(2):
        assert BEGAN not in infer(tiny.bundle, many, output)
    assert not cache.exists()
    assert not Path(OFF).exists()


@pytest.mark.parametrize("said", ["", "relative"])
def test_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    from specbeam.catalog.user_cache import user_cache

    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "specbeam"
    monkeypatch.setenv("XDG_CACHE_HOME", said)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert user_cache() == tmp_path / "home" / ".cache" / "specbeam"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert user_cache() == tmp_path / "home" / "Library" / "Caches" / "specbeam"


def test_measuring_begins_cold(tiny: Tiny, many: Path, output: Path, cache: Path, tmp_path: Path) -> None:
    infer(tiny.bundle, many, output)
    (file,) = files(cache)
    before = file.read_bytes()
    bundle = shutil.copytree(tiny.bundle, tmp_path / "copy")
    good("tune", bundle, many, "--limit", 8, "-k", 5, "--threads", 1)
    good("explain", tiny.bundle, "--history", "1,2,3", "-o", tmp_path / "tree.html", "--threads", 1)
    assert file.read_bytes() == before
    assert files(cache) == [file]
    assert os.listdir(cache) == [file.name]
