"""What several test files of this folder share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align_cases import CODES, FEW, write_dataset
from objective_cases import Case, make_case
from specbeam.align.align import AlignOptions, AlignReport, align
from specbeam.align.objectives import Objective, find_objective
from specbeam.align.training.sources import Pretrained, Source
from specbeam.catalog.histories.dataset import Dataset
from tiny_models import (
    tiny_catalog,
    tiny_checkpoint,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a target and a draft that know each other; nothing in it is changed."""
    folder = tmp_path_factory.mktemp("pair")
    write_dataset(folder / "data", lambda path: tiny_catalog(path, items=300, codes=CODES))
    tiny_checkpoint(folder / "target", codes=CODES)
    tiny_checkpoint(folder / "draft", codes=CODES, seed=1, num_hidden_layers=1)
    return folder


@pytest.fixture
def dataset(shared: Path) -> Dataset:
    return Dataset.open(shared / "data")


@pytest.fixture
def run(shared: Path, dataset: Dataset, tmp_path: Path) -> Callable[..., AlignReport]:
    """Aligns the shared draft to the shared target, unless told otherwise."""

    def run(
        output: str = "aligned", source: Source | None = None, objective: Objective | None = None, *, top_k: int = 8,
        on_policy: float = 0.0, data: Dataset | None = None, target: Path | None = None, **options: Any,
    ) -> AlignReport:  # fmt: skip
        return align(
            data or dataset, target or shared / "target", source or Pretrained(shared / "draft"),
            objective or find_objective("path-kd"), tmp_path / output,
            options=AlignOptions(top_k=top_k, on_policy=on_policy), **{"budget": FEW, **options},
        )  # fmt: skip

    return run


@pytest.fixture(scope="module", params=[False, True], ids=["even", "ragged"])
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)
