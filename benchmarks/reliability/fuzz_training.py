"""What training leaves and reads again, as targets of `fuzz.py`: an interrupted run's folder, records, prompts."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.reliability.fuzz_checkpoints import headers
from benchmarks.reliability.fuzz_mutations import Target
from fuzzing import alternating, mutated, mutated_json
from points import At, interrupt, run
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.compile import compile_prompt
from specbeam.catalog.prompts.options import PromptOptions
from specbeam.export.trained import TRAINING, Trained
from specbeam.verbs.options import _read_prompt
from tiny_models import identifier_tokens, make_tokenizer, tiny_catalog

FILES = (
    "settings.json", "state.json", "trainer_state.json", "weights.safetensors", "best.safetensors",
    "optimizer.safetensors", "random.safetensors",
)  # fmt: skip
FEW = {"steps": 4, "checks": 4}
TEMPLATE = b"user {history}\r\nnext:"  # words that the tokenizer knows


def training_targets(folder: Path) -> list[Target]:
    """Every file of a run that was interrupted, resumed; what it was trained with; and a prompt's file."""
    whole = folder / "whole"
    try:
        run(whole, At(3, interrupt), budget=FEW)
    except SpecBeamError:
        (checkpoint,) = whole.glob("checkpoint-*")
    files = {name: (whole if name == "settings.json" else checkpoint) / name for name in FILES}
    return [*_prompts(folder), *(_resumed(folder / name, whole, file) for name, file in files.items())]


def _resumed(folder: Path, whole: Path, file: Path) -> Target:
    seed_file = file.read_bytes()

    def use(data: bytes) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / file.relative_to(whole)).write_bytes(data)
        run(folder, budget=FEW)

    return Target(file.name, use, _inputs(seed_file, file.suffix))


def _inputs(seed_file: bytes, suffix: str) -> Callable[[int, int], Iterator[bytes]]:
    def inputs(number: int, seed: int) -> Iterator[bytes]:
        blind, half = mutated([seed_file], number - number // 2, seed=seed), number // 2
        if suffix == ".json":
            return alternating(mutated_json([seed_file], half, seed=seed), blind)
        return alternating(headers(seed_file, half, seed), blind)

    return inputs


def _prompts(folder: Path) -> list[Target]:
    """training.json, with the prompt that it tells of, and a template as it is typed."""
    tokenizer = make_tokenizer(identifier_tokens(1, 2))
    catalog = Catalog.load(tiny_catalog(folder / "index.json", items=2, levels=1, codes=2), None)
    options = PromptOptions(prompt="user {history} next:", separator=",", history_length=9)
    spec = compile_prompt(tokenizer, catalog, options)
    record = msgspec.json.encode({"prompt": options, "compiled": spec, "steps": 3, "seconds": 1.5})

    def use_record(data: bytes) -> None:
        (folder / TRAINING).write_bytes(data)
        trained = Trained.of(folder)
        assert trained is not None
        trained.check(compile_prompt(tokenizer, catalog, trained.prompt))

    def use_template(data: bytes) -> None:
        (folder / "prompt.txt").write_bytes(data)
        compile_prompt(tokenizer, catalog, PromptOptions(prompt=_read_prompt(folder / "prompt.txt")))

    return [
        Target("training.json", use_record, _inputs(record, ".json")),
        Target("prompt file", use_template, lambda number, seed: mutated([TEMPLATE], number, seed=seed)),
    ]
