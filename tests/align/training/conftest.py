"""What several test files of this folder share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets_made import write_dataset
from specbeam.align.training.sources import Source
from specbeam.align.training.train import train
from specbeam.catalog.histories.dataset import Dataset
from train_cases import FEW


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.open(write_dataset(tmp_path / "data"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """Trains, and returns the report with the model as it was when it was saved."""

    def run(dataset: Dataset, source: Source, output: Path, **options: Any) -> tuple[Any, Any]:
        kept: list[Any] = []
        save = type(source).save

        def keep(self: Source, model: Any, tokenizer: Any, part: Path) -> None:
            kept.append(model)
            save(self, model, tokenizer, part)

        monkeypatch.setattr(type(source), "save", keep)
        report = train(dataset, source, output, **{"budget": FEW, **options})
        monkeypatch.undo()
        return report, kept[0]

    return run
