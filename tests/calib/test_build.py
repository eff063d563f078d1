"""build-engine --precision int8: what it writes, what it records, what it refuses."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from commands import bad, good
from specbeam.calib import int8, trials
from specbeam.calib.data import Split
from specbeam.calib.int8 import Int8Build
from specbeam.calib.options import Int8Options, kept_parts
from specbeam.calib.trials import Candidate
from specbeam.catalog.errors import OptionError
from specbeam.engines.build import Order
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.onnxruntime.backend import OrtBackend
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender
from tiny_bundle import ENGINE, Tiny

INT8 = "onnxruntime-cpu-int8"


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """Histories whose last item is anything: random weights rank at random, and many users make some hits."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 40, rng.integers(2, 9)).astype(str).tolist() for _ in range(160)]
    lines = [{"user": f"u{i}", "items": items} for i, items in enumerate(drawn)]
    path = tmp_path / "calibration.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def build(bundle: Path, calibration: Path, *more: object) -> str:
    arguments = ["build-engine", bundle, "--precision", "int8", "--calibration", calibration, "--calibration-size", 12]
    return good(*arguments, "--threads", 1, *more).output


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_what_is_built_and_recorded(bundle: Path, calibration: Path) -> None:
    told = build(bundle, calibration, "--no-gate")
    facts = Bundle.open(bundle).engine_facts(INT8)
    assert (facts.precision, facts.gate) == ("int8", None)
    for role in ("target", "draft"):
        one = facts.roles[role]
        assert (one.precision, one.cache) == ("int8", "fp32")
        assert facts.has_catalog_head(role)
        assert one.quantization is not None
        tried = {trial.method: trial for trial in one.quantization.trials}
        assert set(tried) == {"static", "dynamic", "weight8", "weight4"}
        kept_apart = [trial for method, trial in tried.items() if method != "dynamic"]  # its scores depend on the call
        fastest = min(kept_apart, key=lambda trial: sum(trial.milliseconds.values()))
        assert one.quantization.method == fastest.method
        assert tried["weight8"].divergence < tried["weight4"].divergence
        # In so small a catalog everything needed is drafted at once: the target gets no second call.
        assert set(fastest.milliseconds) == ({"prefill+verify"} if role == "target" else {"prefill", "draft step"})
        assert 0 < one.max_difference < 10
        assert f"{role}: {fastest.method}" in told
    assert facts.drafting is not None
    assert 0 < facts.drafting.acceptance <= 1
    assert {"target/model.onnx", "target-ranges.json", "draft-ranges.json"} <= set(facts.files)
    lists = Recommender.open(bundle, engine=INT8).recommend([["3", "4"]], 5)
    assert len(lists[0].items) == 5
    assert sorted(path.name for path in (bundle / "engines").iterdir() if path.is_dir()) == [ENGINE, INT8]
    assert f"{INT8} (onnxruntime" in good("inspect", bundle).output


def test_the_gate_is_recorded_and_told(bundle: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.calib.gate.MOST_LOST", 1.0)  # hits of random weights are noise
    told = build(bundle, calibration, "--method", "weight8", "--draft-precision", "fp32")
    name = f"{INT8}-draft-fp32"
    facts = Bundle.open(bundle).engine_facts(name)
    assert facts.gate is not None
    assert facts.gate.passed
    assert facts.gate.users == 148
    assert facts.gate.overlap["20"] > 0.9
    assert (facts.roles["draft"].precision, facts.drafting) == ("fp32", None)
    assert "gate passed on 148 requests (148 users): overlap @10" in told
    assert f"--engine {name}" in told
    assert (
        Bundle.open(bundle)
        .rebuild(name)
        .endswith("--precision int8 --draft-precision fp32 --calibration HISTORIES --overwrite")
    )


def test_a_target_that_does_not_pass_is_refused_and_the_older_engine_stays(
    bundle: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, calibration, "--no-gate", "--method", "weight8")
    before = (bundle / "engines" / INT8 / "engine.json").read_bytes()
    monkeypatch.setattr("specbeam.calib.gate.LEAST_OVERLAP", 1.01)
    kept: list[Sequence[str]] = []
    original = int8.try_method

    def watched(*arguments: Any, **options: Any) -> Candidate:
        kept.append(options["kept"])
        return original(*arguments, **options)

    monkeypatch.setattr(int8, "try_method", watched)
    told = bad(
        "build-engine", bundle, "--precision", "int8", "--calibration", calibration, "--method", "dynamic",
        "--overwrite", "--calibration-size", 12, "--threads", 1,
    )  # fmt: skip
    assert "The int8 target (dynamic) is not built: on 148 requests (148 users) its lists share" in told
    assert (bundle / "engines" / INT8 / "engine.json").read_bytes() == before
    assert sorted(path.name for path in (bundle / "engines").iterdir() if path.is_dir()) == [ENGINE, INT8]
    assert [len(parts) for parts in kept] == [0, 1]  # and once more, with the most sensitive part spared


def test_ranges_are_kept_and_used_again(bundle: Path, calibration: Path, tmp_path: Path) -> None:
    first = ["--method", "static", "--no-gate", "--estimator", "minmax"]
    build(bundle, calibration, *first)
    saved = (bundle / "engines" / INT8 / "target-ranges.json").read_bytes()
    (tmp_path / "kept").mkdir()
    for role in ("target", "draft"):
        (tmp_path / "kept" / f"{role}-ranges.json").write_bytes(
            (bundle / "engines" / INT8 / f"{role}-ranges.json").read_bytes()
        )
    graph = (bundle / "engines" / INT8 / "target/model.onnx").read_bytes()
    good(
        "build-engine", bundle, "--precision", "int8", "--calibration", calibration, "--method", "static", "--no-gate",
        "--ranges", tmp_path / "kept", "--overwrite", "--threads", 1,
    )  # fmt: skip
    assert (bundle / "engines" / INT8 / "target-ranges.json").read_bytes() == saved
    assert (bundle / "engines" / INT8 / "target/model.onnx").read_bytes() == graph
    assert "was calibrated on another graph" in bad(
        "build-engine", bundle, "--precision", "int8", "--calibration", calibration, "--ranges", swapped(tmp_path),
        "--method", "static", "--no-gate", "--threads", 1, "--overwrite",
    )  # fmt: skip


def swapped(tmp_path: Path) -> Path:
    """The draft's ranges given out as the target's."""
    folder = tmp_path / "swapped"
    folder.mkdir()
    (folder / "target-ranges.json").write_bytes((tmp_path / "kept" / "draft-ranges.json").read_bytes())
    return folder


def test_smoothing_and_keeping(bundle: Path, calibration: Path) -> None:
    options = ["--no-gate", "--method", "static", "--smooth", 0.5, "--keep", "head", "--keep", "first"]
    told = build(bundle, calibration, *options)
    facts = Bundle.open(bundle).engine_facts(INT8).roles["target"].quantization
    assert facts is not None
    assert (facts.smooth, facts.kept, facts.ranges) == (0.5, ("head", "layers.0"), "percentile")
    assert "SmoothQuant 0.5, head, layers.0 in floating point" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "int8 needs histories to calibrate on and to compare rankings on: --calibration HISTORIES"),
        (["--calibration", "absent.jsonl"], "absent.jsonl: does not exist"),
        (["--calibration", "HERE", "--keep", "tail"], "got the parts tail to keep; expected any of: first, last, "),
        (["--calibration", "HERE", "--estimator", "minmax", "--percentile", "99"], "99.0 for the estimator minmax"),
        (["--calibration", "HERE", "--smooth", "2"], "got a smoothing strength of 2.0; expected 0 to 1"),
        (["--calibration", "HERE", "--max-batch", "4"], "--max-batch: for --backend tensorrt and tensorrt-rtx only"),
        (["--calibration", "HERE", "--device", "cuda"], "on cuda runs fp32, fp16, bf16; got int8"),
        (["--calibration", "HERE", "--ranges", "HERE"], "--calibration-size: ranges of an earlier"),
    ],
)  # fmt: skip
def test_what_is_refused(bundle: Path, calibration: Path, options: list[str], message: str) -> None:
    given = [calibration if option == "HERE" else option for option in options]
    told = bad("build-engine", bundle, "--precision", "int8", "--threads", 1, "--calibration-size", 5, *given)
    assert message in told
    assert sorted(path.name for path in (bundle / "engines").iterdir() if path.is_dir()) == [ENGINE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ranges: ranges.update(tensors={n: [-1e29, 1e29] for n in ranges["tensors"]}), "ranges.json is damaged"),
        (lambda ranges: ranges.update(tensors={n: [0.0, 0.0] for n in ranges["tensors"]}), "ranges.json is damaged"),
        (lambda ranges: ranges.update(tensors={n: [5.0, -5.0] for n in ranges["tensors"]}), "ranges.json is damaged"),
        (lambda ranges: ranges["channels"].update({n: [1e300] for n in ranges["channels"]}), "ranges.json is damaged"),
        (lambda ranges: ranges.update(seed=-3), "ranges.json is damaged"),
        (lambda ranges: ranges.update(channels={}), "ranges.json is damaged"),
        (lambda ranges: ranges.update(channels={n: [1e6] for n in ranges["channels"]}), "have 1 channels for"),
    ],
)  # fmt: skip
def test_damaged_ranges_are_refused_and_the_engine_stays(
    bundle: Path, calibration: Path, tmp_path: Path, change: Any, message: str
) -> None:
    build(bundle, calibration, "--no-gate", "--method", "static", "--draft-precision", "fp32")
    engine = bundle / "engines" / f"{INT8}-draft-fp32"
    before, ranges = (engine / "engine.json").read_bytes(), json.loads((engine / "target-ranges.json").read_text())
    change(ranges)
    (tmp_path / "target-ranges.json").write_text(json.dumps(ranges))
    assert message in bad(
        "build-engine", bundle, "--precision", "int8", "--draft-precision", "fp32", "--calibration", calibration,
        "--ranges", tmp_path, "--no-gate", "--overwrite", "--threads", 1,
    )  # fmt: skip
    assert (engine / "engine.json").read_bytes() == before


def test_a_quantized_graph_that_computes_no_numbers_is_refused(
    bundle: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "mean_divergence", lambda *_: float("nan"))
    assert "quantized by weight8, is nan; expected a finite number" in bad(
        "build-engine", bundle, "--precision", "int8", "--calibration", calibration, "--method", "weight8", "--no-gate",
        "--calibration-size", 5, "--threads", 1,
    )  # fmt: skip
    assert sorted(path.name for path in (bundle / "engines").iterdir() if path.is_dir()) == [ENGINE]


def test_one_user_alone_cannot_be_calibrated_on_and_compared(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"user": "u", "items": ["1", "2", "3"]}\n' * 4)
    assert "got 4 usable requests, all of users to calibrate on; expected others as well" in bad(
        "build-engine", bundle, "--precision", "int8", "--calibration", path
    )


def test_what_a_backend_does_not_take_is_refused_before_any_work(tiny: Tiny, tmp_path: Path) -> None:
    class Explicit(OrtBackend):
        integers = ("static",)

    order = Order(Bundle.open(tiny.bundle), Explicit("cpu"), {"target": "int8"}, 1)
    build = Int8Build(order, Int8Options(method="dynamic"), Split((), ()), None, tmp_path, lambda *_: None)
    with pytest.raises(OptionError, match="onnxruntime backend takes int8 by static; got dynamic"):
        build.check()
    build = Int8Build(order, Int8Options(), Split((), ()), None, tmp_path, lambda *_: None)
    build.check()
    assert build.methods("target") == ("static",)


def test_options_of_int8_without_int8_are_refused(tiny: Tiny) -> None:
    assert "--method, --gate: for --precision int8 only" in bad(
        "build-engine", tiny.bundle, "--method", "dynamic", "--no-gate", "--overwrite"
    )


def test_half_precision_engines_are_converted(bundle: Path) -> None:
    good("build-engine", bundle, "--precision", "fp16", "--draft-precision", "fp32", "--threads", 1)
    name = "onnxruntime-cpu-fp16-draft-fp32"
    facts = Bundle.open(bundle).engine_facts(name).roles
    assert (facts["target"].precision, facts["target"].cache) == ("fp16", "fp16")
    assert (facts["draft"].precision, facts["draft"].cache) == ("fp32", "fp32")
    assert 0 < facts["target"].max_difference < 0.1
    assert facts["draft"].max_difference < 1e-4
    graph = bundle / "engines" / name / "target/model.onnx"
    assert operators(graph) >= {"LogSoftmax"}
    one, two = (Recommender.open(bundle, engine=e).recommend([["3", "4"]], 3)[0].items for e in (ENGINE, name))
    np.testing.assert_allclose([a.score for a in one], [b.score for b in two], atol=0.1)


def test_the_same_users_are_drawn_for_earlier_ranges(bundle: Path, calibration: Path) -> None:
    """Who was calibrated on is not compared on."""
    told = ("--seed: ranges of an earlier calibration have theirs", "--estimator, --seed: ranges of an earlier")
    lacking = bad("build-engine", bundle, "--precision", "int8", "--calibration", calibration, "--ranges", bundle)
    assert f"{bundle}/target-ranges.json holds no calibration ranges" in lacking
    options = ["--precision", "int8", "--calibration", calibration, "--ranges", bundle, "--overwrite"]
    assert told[0] in bad("build-engine", bundle, *options, "--seed", 3)
    assert told[1] in bad("build-engine", bundle, *options, "--seed", 3, "--estimator", "minmax")


def test_first_and_last_are_layers() -> None:
    parts = ["layers.0", "layers.1", "layers.2", "head"]
    assert kept_parts(["last", "head", "first", "layers.2"], parts) == ["layers.2", "head", "layers.0"]
    with pytest.raises(OptionError, match=r"got all parts to keep \(head, layers\.0\): nothing is left to quantize"):
        kept_parts(["head", "first", "last"], ["layers.0", "head"])
    with pytest.raises(OptionError, match=r"got the parts layers\.3 to keep; expected any of: first, last, layers\.0"):
        kept_parts(["layers.3"], parts)


def test_drafting_changes_no_list_of_a_calibrated_engine(bundle: Path, calibration: Path) -> None:
    """Its integers depend on a token alone, not on who shares the call."""
    build(bundle, calibration, "--no-gate", "--method", "static")
    histories = [[str(i), str((7 * i) % 40), str((3 * i) % 40)][: 1 + i % 3] for i in range(30)]

    def lists(**options: Any) -> tuple[list[list[str]], int]:
        recommender = Recommender.open(bundle, engine=EngineChoice(INT8, threads=1), **options)
        found = recommender.recommend(histories, 6)
        return [[item.item for item in result.items] for result in found], recommender.stats.rejections

    plain, _ = lists(drafting="none", batching=1)
    for batch in (1, 8):
        drafted, rejections = lists(drafting=Drafting(shape=DraftShape(2, 2)), batching=batch)
        assert drafted == plain
        assert rejections > 20
