"""A few mutations of every file of a checkpoint; `benchmarks/fuzz_checkpoints.py` makes many more."""

from pathlib import Path

import pytest

from fuzz_checkpoints import Checkpoints, Target, fuzz_target

FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "adapter_config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def targets(checkpoints: Checkpoints) -> dict[str, Target]:
    return {target.file: target for target in checkpoints.targets()}


def test_every_file_is_mutated(checkpoints: Checkpoints, targets: dict[str, Target]) -> None:
    assert tuple(targets) == FILES
    for folder in ("model", "sharded", "adapter"):
        checkpoints.whole(checkpoints.folder / folder)  # as they are, they are good


@pytest.mark.parametrize("file", FILES)
def test_damage_is_one_of_our_errors(checkpoints: Checkpoints, targets: dict[str, Target], file: str) -> None:
    for whole, number in ((False, 24), (True, 6)):
        report = fuzz_target(checkpoints, targets[file], number, whole=whole, seed=1)
        assert report.kinds() == {}
        assert report.inputs == number
        assert report.accepted + report.refused == number


def test_what_is_mutated_is_read(checkpoints: Checkpoints, targets: dict[str, Target], tmp_path: Path) -> None:
    for file in FILES:
        accepted = fuzz_target(checkpoints, targets[file], 24, whole=False, seed=1).accepted
        assert (accepted == 24) == (file == "generation_config.json"), file  # of which nothing is required
