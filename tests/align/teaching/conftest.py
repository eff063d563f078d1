"""What several test files of this folder share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specbeam.align.teaching import store as teach
from specbeam.align.teaching.lessons import Places
from specbeam.align.training.samples import Format, PromptOptions
from specbeam.catalog.items import Catalog
from store_cases import PART, SAMPLES, Lecture
from tiny_models import identifier_tokens, make_tokenizer, tiny_catalog


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach, "PART", PART)
    monkeypatch.setattr(teach, "BATCH", 3)


@pytest.fixture
def lecture(tmp_path: Path) -> Lecture:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "model.safetensors").write_bytes(b"weights")
    catalog = Catalog.load(tiny_catalog(tmp_path / "index.json"), None)
    form = Format.compile(make_tokenizer(identifier_tokens()), catalog, PromptOptions(history_length=4))
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 40, rng.integers(2, 8)) for _ in range(6)]
    places = Places.choose(histories, 3, SAMPLES, seed=0)
    assert len(places) == SAMPLES
    return Lecture(tmp_path / "trees", tmp_path / "target", form, places)


@pytest.fixture
def whole(lecture: Lecture, tmp_path: Path) -> dict[str, bytes]:
    """The files of a run that nothing interrupts."""
    uninterrupted = replace(lecture, folder=tmp_path / "whole")
    uninterrupted.fill()
    return uninterrupted.files()
