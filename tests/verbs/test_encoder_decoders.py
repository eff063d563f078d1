"""Every verb on a bundle whose target is a T5 and whose draft an mT5."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from commands import bad, good, lines, same_items, user, write
from datasets_made import write_dataset
from quick_builds import few_timings
from specbeam.engines.bundle.facts import ENCODER
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Recommender
from specbeam.runtime import room as room_module
from specbeam.serve import AsyncRecommender
from tiny_bundle import ENGINE

INT8 = "onnxruntime-cpu-int8"
USERS = 24


@pytest.fixture(scope="module")
def made(encoder_decoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a catalog, histories, and a bundle with engines in fp32 and int8."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(encoder_decoders, folder / "bundle")
    shutil.copy(encoder_decoders.parent / "index.json", folder)
    with few_timings():
        rng = np.random.default_rng(0)
        drawn = [rng.integers(0, 40, rng.integers(2, 9)).astype(str).tolist() for _ in range(160)]
        write(folder / "calibration.jsonl", *(user(f"u{i}", *items) for i, items in enumerate(drawn)))
        write(folder / "histories.jsonl", *(user(f"u{i}", *items) for i, items in enumerate(drawn[:USERS])))
        good(
            "build-engine", folder / "bundle", "--precision", "int8", "--calibration", folder / "calibration.jsonl",
            "--calibration-size", 12, "--method", "static", "--no-gate", "--keep", "encoder.read", "--keep", "head",
            "--threads", 1,
        )  # fmt: skip
        good("infer", folder / "bundle", folder / "histories.jsonl", "-o", folder / "plain.jsonl", "--drafter", "none")
        yield folder


def infer(made: Path, output: Path, *options: object) -> list[dict[str, Any]]:
    good("infer", made / "bundle", made / "histories.jsonl", "-o", output, *options)
    return lines(output)


def items_of(line: dict[str, Any]) -> set[str]:
    return {entry["item"] for entry in line["items"]}


def assert_same_lists(got: list[dict[str, Any]], made: Path) -> None:
    """Those of plain beam search."""
    for one, expected in zip(got, lines(made / "plain.jsonl"), strict=True):
        assert one["user"] == expected["user"]
        assert same_items(one["items"], expected["items"])


@pytest.mark.parametrize(
    "options",
    [["--speculation", "fixed"], ["--batch-size", "1"], ["--workers", "2"], ["--engine", "torch-cpu-fp32"]],
    ids=lambda options: options[0],
)
def test_lists_are_the_same_however_they_are_made(made: Path, output: Path, options: list[object]) -> None:
    assert_same_lists(infer(made, output, *options), made)


@pytest.mark.parametrize("mode", [["tolerant", "--slack", "0.1"], ["relaxed"], ["sampled"]], ids=lambda mode: mode[0])
def test_every_mode_answers(made: Path, output: Path, mode: list[str]) -> None:
    found = infer(made, output, "--verify", *mode, "--speculation", "fixed", "-k", 5)
    assert all(len(one["items"]) == 5 for one in found)


@pytest.mark.parametrize("options", [["--drafter", "none"], ["--speculation", "fixed"]], ids=lambda options: options[1])
def test_lists_are_the_same_where_memory_is_limited(
    made: Path, output: Path, options: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_module, "resident_memory", lambda: 0)
    assert_same_lists(infer(made, output, "--memory", "700kB", *options), made)
    said = bad("infer", made / "bundle", made / "histories.jsonl", "-o", output, "--memory", "60kB", "--overwrite")
    assert "requests in succession could not be answered: its search (a prompt of" in said


def test_a_pool_drafts_for_it(made: Path, tmp_path: Path) -> None:
    good("build-pool", made / "histories.jsonl", "--items", "-o", tmp_path / "pool")
    for drafter in ("retrieval", "both"):
        found = infer(made, tmp_path / f"{drafter}.jsonl", "--pool", tmp_path / "pool", "--drafter", drafter)
        assert_same_lists(found, made)


def test_int8_is_of_both_graphs(made: Path, output: Path) -> None:
    bundle = Bundle.open(made / "bundle")
    facts = bundle.engine_facts(INT8).roles["target"].quantization
    assert facts is not None
    assert facts.kept == ("encoder.read", "head")
    folder = made / "bundle" / "engines" / INT8
    ranges = json.loads((folder / "target-ranges.json").read_text())["tensors"]
    assert 0 < sum(name.startswith("encoder.") for name in ranges) < len(ranges)
    for graph in ("model.onnx", ENCODER):
        float_, int8 = (
            (path / "target" / graph).stat().st_size for path in (made / "bundle" / "engines" / ENGINE, folder)
        )
        assert int8 < float_
        kinds = {node.op_type for node in onnx.load(folder / "target" / graph).graph.node}
        assert "MatMul" in kinds  # what was kept
        assert kinds & {"MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul"}
    found, plain = infer(made, output, "--engine", INT8, "--drafter", "none"), lines(made / "plain.jsonl")
    shared = [len(items_of(a) & items_of(b)) for a, b in zip(found, plain, strict=True)]
    assert np.mean(shared) > 17


def test_the_gate_and_ranges_of_an_earlier_calibration(made: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(made / "bundle", tmp_path / "bundle")
    again = [
        "build-engine", bundle, "--precision", "int8", "--calibration", made / "calibration.jsonl", "--threads", 1,
        "--ranges", made / "bundle" / "engines" / INT8, "--overwrite",
    ]  # fmt: skip
    good(*again, "--method", "static", "--no-gate", "--keep", "encoder.read", "--keep", "head")
    for name in ("target-ranges.json", f"target/{ENCODER}", "target/model.onnx"):
        old, new = ((path / "engines" / INT8 / name).read_bytes() for path in (made / "bundle", bundle))
        assert old == new
    told = good(*again, "--method", "weight8").output
    assert "gate passed on 148 requests" in told
    assert "weight8  prefill+verify" in told


def test_what_it_is_told_of(made: Path) -> None:
    told = good("inspect", made / "bundle").output
    assert "T5ForConditionalGeneration, 45,536 parameters, 2 layers behind an encoder of 3" in told
    assert "runs" in good("doctor", made / "bundle").output


def test_measured_and_shown(made: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(made / "bundle", tmp_path / "bundle")
    assert "Expected ms from each depth on" in good("tune", bundle, made / "histories.jsonl", "--limit", 16).output
    good("explain", bundle, "--history", "1,2,3", "-o", tmp_path / "list.svg", "--speculation", "fixed")
    assert "<svg" in (tmp_path / "list.svg").read_text()


def test_evaluated_beside_generate(made: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(made / "index.json", data)
    write_dataset(data)
    told = good(
        "evaluate", made / "bundle", data, "--split", "valid", "-k", 5, "--timed-users", 2, "--threads", 1,
        "--speculation", "fixed", "-o", tmp_path / "figures.json",
    ).output  # fmt: skip
    assert "10 of 10 strict lists are those of plain beam search" in told
    assert "generate" in told


def test_raced(made: Path, tmp_path: Path) -> None:
    told = good(
        "bench", made / "bundle", made / "histories.jsonl", "-k", 5, "--batches", 3, "--users", 3,
        "--rounds", 1, "--oracle", "-o", tmp_path / "race.json",
    ).output  # fmt: skip
    assert "lists are those of the plain loop" in told
    for name in ("generate", "generate-arrays", "beams", "plain", "model", "auto", "floor"):
        assert f'"{name}"' in (tmp_path / "race.json").read_text()


def test_served_together(made: Path) -> None:
    """Requests join others in flight: their prompts are read meanwhile, and joined to what was read before."""
    histories = [line["items"] for line in lines(made / "histories.jsonl")]
    expected = Recommender.open(made / "bundle", drafting="none").recommend(histories, 5)

    async def served() -> list[list[str]]:
        with AsyncRecommender.open(made / "bundle") as recommender:

            async def one(number: int) -> list[str]:
                await asyncio.sleep(number / 2000)
                found = await recommender.recommend(histories[number], k=5)
                return [entry.item for entry in found.items]

            return await asyncio.gather(*map(one, range(len(histories))))

    assert asyncio.run(served()) == [[entry.item for entry in each.items] for each in expected]


def test_packed_for_triton(made: Path, tmp_path: Path) -> None:
    good("package-triton", made / "bundle", "--output", tmp_path / "models")
    assert len(list((tmp_path / "models").glob(f"bundle/1/**/engines/{ENGINE}/target/{ENCODER}"))) == 1
