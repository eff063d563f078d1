"""A few mutations of every file of a checkpoint; `benchmarks/reliability/fuzz.py` makes many more."""

import pytest

from benchmarks.reliability.fuzz_checkpoints import Checkpoints, checkpoint_targets
from benchmarks.reliability.fuzz_mutations import Target
from fuzzing import fuzz

FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "adapter_config.json", "adapter_model.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def targets(checkpoints: Checkpoints) -> dict[bool, dict[str, Target]]:
    """Those that load a file alone (False), and those that load the whole checkpoint."""
    kinds = {whole: checkpoint_targets(checkpoints, whole=whole) for whole in (False, True)}
    return {whole: {target.name: target for target in found} for whole, found in kinds.items()}


def test_every_file_is_mutated(checkpoints: Checkpoints, targets: dict[bool, dict[str, Target]]) -> None:
    assert tuple(targets[False]) == tuple(targets[True]) == FILES
    for folder in ("model", "sharded", "adapter"):
        checkpoints.whole(checkpoints.folder / folder)  # as they are, they are good


@pytest.mark.parametrize("file", FILES)
def test_damage_is_one_of_our_errors(targets: dict[bool, dict[str, Target]], file: str) -> None:
    for whole, number in ((False, 24), (True, 6)):
        report = fuzz(targets[whole][file].use, targets[whole][file].inputs(number, 1))
        assert report.kinds() == {}
        assert report.inputs == number
        assert report.accepted + report.refused == number


def test_what_is_mutated_is_read(targets: dict[bool, dict[str, Target]]) -> None:
    for file, target in targets[False].items():
        accepted = fuzz(target.use, target.inputs(24, 1)).accepted
        assert (accepted == 24) == (file == "generation_config.json"), file  # of which nothing is required
