"""Loaders of artifacts on changed ones, a few hundred of each: an answer or one of our errors, in time."""

from pathlib import Path

import pytest

from benchmarks.reliability.fuzz_artifacts import ENGINE, Artifacts, artifact_targets
from benchmarks.reliability.fuzz_journal import journal_targets
from benchmarks.reliability.fuzz_pools import other_targets, pool_targets
from fuzzing import fuzz
from specbeam.engines.bundle.sealed import sealed
from tiny_models import make_text_tokenizer

INPUTS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return Artifacts(tmp_path_factory.mktemp("artifacts") / "bundle")


def test_what_is_changed_is_sound_before(made: Artifacts) -> None:
    """Otherwise all that follows would be refused for one reason."""
    made.manifest_json(sealed(made.manifest))
    made.planned(sealed(made.engine), sealed(made.tuning))
    made.search(made.catalog, made.trie)
    assert (made.folder / "engines" / ENGINE / "engine.json").is_file()


def test_bundles(tmp_path: Path) -> None:
    for target in artifact_targets(tmp_path / "bundle"):
        report = fuzz(target.use, target.inputs(INPUTS, 7))
        assert not report.findings, (target.name, report.kinds())
        assert report.refused > INPUTS / 2


def test_pools(made: Artifacts, tmp_path: Path) -> None:
    for target in pool_targets(tmp_path / "pools", made.catalog, made.trie):
        report = fuzz(target.use, target.inputs(INPUTS, 7))
        assert not report.findings, (target.name, report.kinds())
        assert report.refused > INPUTS / 2


def test_journals(tmp_path: Path) -> None:
    for target in journal_targets(tmp_path / "journal"):
        report = fuzz(target.use, target.inputs(INPUTS, 7))
        assert not report.findings, (target.name, report.kinds())
        assert report.inputs == INPUTS


def test_others(made: Artifacts, tmp_path: Path) -> None:
    tokenizer = make_text_tokenizer().backend_tokenizer.to_str().encode()
    for target in other_targets(tmp_path / "others", made.trie, tokenizer):
        report = fuzz(target.use, target.inputs(INPUTS, 7))
        assert not report.findings, (target.name, report.kinds())
