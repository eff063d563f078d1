"""A share of a run's lists, ranked again by plain beam search on the reference engine."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import numpy_helper

from commands import bad, good, lines, run, user, write
from specbeam.catalog.errors import BundleError, OptionError
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Batching, EngineChoice, Recommender, Verification
from specbeam.runtime.metrics import NEAR
from specbeam.runtime.runs.recheck import Recheck, least_overlap, reference_engine
from specbeam.runtime.types import RequestFailure
from tiny_bundle import ENGINE, Tiny, break_rows, edit_engine, seal_engine


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write(tmp_path / "many.jsonl", *(user(f"u{i}", i % 40, (i * 7 + 1) % 40) for i in range(200)))


def recheck(tiny: Tiny, share: float = 1.0, mode: str = "strict") -> Recheck:
    verification = Verification(mode)  # type: ignore[arg-type]
    return Recheck.open(Bundle.open(tiny.bundle), share, verification, threads=1, batching=Batching(4))


@pytest.mark.parametrize("mode", ["strict", "sampled"])
def test_the_same_engine_agrees(tiny: Tiny, many: Path, output: Path, mode: str) -> None:
    result = good(
        "infer", tiny.bundle, many, "-o", output, "--verify", mode, "--verify-sample", 0.5, "-k", 5, "--threads", 1
    )
    (told,) = [line for line in result.output.splitlines() if "ranked again" in line]
    number = int(told.split()[0])
    assert 60 < number < 140
    assert f"{number} lists were ranked again by plain beam search on {ENGINE}: overlap 100.0000%" in told
    again = good(
        "infer", tiny.bundle, many, "-o", output, "--verify", mode, "--verify-sample", 0.5, "-k", 5, "--threads", 1,
        "--overwrite",
    )  # fmt: skip
    assert f"\n{number} lists were ranked again" in again.output  # the same ones


def damaged(tiny: Tiny, folder: Path) -> Path:
    """A bundle whose engine of another precision ranks otherwise; the exact one is beside it."""
    bundle = shutil.copytree(tiny.bundle, folder)
    good("build-engine", bundle, "--precision", "fp16", "--threads", 1)
    engine = bundle / "engines" / "onnxruntime-cpu-fp16"
    scramble(engine / "target" / "model.onnx")
    seal_engine(engine)
    return bundle


def scramble(path: Path) -> None:
    """Turn a graph's embedding around."""
    graph = onnx.load(path)
    largest = max(graph.graph.initializer, key=lambda weight: (len(weight.dims) == 2) * np.prod(weight.dims))
    weights = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[::-1]), largest.name))
    onnx.save(graph, path)


def test_a_worse_engine_is_told(tiny: Tiny, many: Path, output: Path, tmp_path: Path) -> None:
    bundle = damaged(tiny, tmp_path / "bundle")
    command = ["infer", bundle, many, "-k", 5, "--threads", 1, "--engine", "onnxruntime-cpu-fp16"]
    message = bad(*command, "-o", output, "--verify-sample", 1)
    assert "200 lists were ranked again by plain beam search on onnxruntime-cpu-fp32: overlap" in message
    assert "Expected of the engine an overlap of at least 90.0000%" in message
    assert len(lines(output)) == 200  # what was served is there
    good(*command, "-o", tmp_path / "enough", "--verify-sample", 1, "--verify-overlap", 0)


def test_ties_are_no_difference(tiny: Tiny) -> None:
    """A list agrees that lacks an item only because another one scores as well."""
    bundle = Bundle.open(tiny.bundle)
    recommender = Recommender.open(bundle, engine=EngineChoice(threads=1), drafting="none")
    checked = recheck(tiny)
    request = recommender.encode(["1", "2"])
    full = recommender.run([request], 6)[0]
    assert not isinstance(full, RequestFailure)
    right = replace(full, items=full.items[:5])
    wrong = replace(full, items=(*full.items[:4], full.items[5]))
    gap = full.items[4].score - full.items[5].score
    expected = 1.0 if gap < NEAR else 0.8
    assert checked.agreements([request], {0: right}, 5)[0].overlap == 1.0
    assert checked.agreements([request], {0: wrong}, 5)[0].overlap == pytest.approx(expected)


def test_what_cannot_be_ranked_again(tiny: Tiny, many: Path, output: Path, bundle: Path) -> None:
    command = ["infer", tiny.bundle, many, "-o", output, "--threads", 1]
    assert "relaxed lists are not those of plain beam search" in bad(
        *command, "--verify", "relaxed", "--verify-sample", 0.1
    )
    assert "--verify-overlap: for --verify-sample only" in bad(*command, "--verify-overlap", 0.5)
    for option in ("--verify-sample", "--verify-overlap"):
        assert run(*command, option, "nan").exit_code == 2
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(OptionError, match="expected above 0 and at most 1"):
            recheck(tiny, share)
    edit_engine(bundle, lambda facts: facts.update(precision="fp16"))
    opened = Bundle.open(bundle)
    assert least_overlap(opened, ENGINE) == 0.9
    assert reference_engine(opened) == "torch-cpu-fp32"
    assert least_overlap(opened, "torch-cpu-fp32") == 1.0
    shutil.rmtree(bundle / "target" / "checkpoint")
    with pytest.raises(BundleError, match="neither an engine of its own precision"):
        reference_engine(Bundle.open(bundle))


def test_a_reference_without_numbers_agrees_with_nothing(tiny: Tiny, bundle: Path) -> None:
    request = Recommender.open(tiny.bundle, engine=EngineChoice(threads=1)).encode(["1"])
    answers = dict(enumerate(Recommender.open(tiny.bundle, engine=EngineChoice(threads=1)).run([request], 3)))
    break_rows(bundle, slice(None))
    checked = Recheck.open(Bundle.open(bundle), 1.0, Verification(), threads=1, batching=Batching(1))
    assert checked.agreements([request], answers, 3)[0].overlap == 0.0
