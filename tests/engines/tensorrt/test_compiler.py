"""NVIDIA's own compiler builds what we export: TensorRT for RTX, which needs no GPU (make test-services)."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import trt_loop
from benchmarks.hardware.compile import compiled
from benchmarks.hardware.compile_cases import Case, matrix
from specbeam.cli import main
from specbeam.engines.build import Order, build_engine
from specbeam.engines.bundle.facts import EnginePrecision, Limits
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.tensorrt.backend import CallSizes, TensorRTBackend
from specbeam.engines.tensorrt.flavour import RTX, Flavour

pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt-rtx", exc_type=ImportError)
pytestmark = [pytest.mark.compiler, pytest.mark.services]
CASES = [pytest.param(case, id=f"{case.what}-{case.role}") for case in matrix()]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "exported").mkdir()
    return folder


@pytest.mark.parametrize("case", CASES)
def test_every_architecture_in_every_precision(case: Case, work: Path) -> None:
    for precision, method in (("fp32", None), ("fp16", None), ("bf16", None), ("int8-weights", "weight8")):
        found = compiled(case, precision, method, (), work)  # type: ignore[arg-type]
        assert "refused" not in found, found
        fused = 0 if precision == "fp32" else case.layers
        assert (found["fused"], found["attentions"]) == (fused, case.layers), precision


@pytest.mark.parametrize("target", RTX.targets)
def test_every_kind_of_gpu(target: str, work: Path) -> None:
    for precision in ("fp16", "bf16", "fp32"):
        found = compiled(Case(), precision, None, (target,), work)  # type: ignore[arg-type]
        assert ("refused" in found) == (precision in RTX.lacking.get(target, ())), (precision, found)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_refused_beforehand_is_what_the_compiler_refuses(
    precision: EnginePrecision, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = compiled(Case(), precision, None, ("7.5",), work)
    assert ours["refused"].startswith("GPUs of compute capability 7.5 have no kernels for")
    monkeypatch.setattr(Flavour, "check_targets", lambda *arguments: None)
    theirs = compiled(Case(), precision, None, ("7.5",), work)
    assert "TensorRT for RTX" in theirs["refused"]
    assert "could not build the plan" in theirs["refused"]


@pytest.mark.parametrize(
    ("case", "fused"),
    [
        (Case(head_dim=8), False),
        (Case(head_dim=12), True),
        (Case(head_dim=256), True),
        (Case(head_dim=264), False),
        (Case(heads=(1, 1)), False),
        (Case(heads=(7, 1)), True),
        (Case(opset=24), True),
        (Case(limits=Limits(max_batch=1, max_prompt=1, max_nodes=1, path=4)), True),
        (Case(limits=Limits(max_batch=8, max_prompt=80, max_nodes=64, path=16)), True),
    ],
)
def test_where_attention_has_no_kernel_of_its_own_it_is_decomposed(case: Case, fused: bool, work: Path) -> None:
    found = compiled(case, "fp16", None, ("8.6",), work)
    assert found.get("fused") == fused * case.layers, found


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8-weights"])
def test_both_graphs_of_encoder_decoders(precision: EnginePrecision, encoder_decoders: Path, tmp_path: Path) -> None:
    bundle, sizes = shutil.copytree(encoder_decoders, tmp_path / "bundle"), CallSizes(max_batch=8, max_nodes=64)
    backend = TensorRTBackend("cuda", sizes, flavour=RTX)
    if precision == "int8-weights":
        name = trt_loop.build_int8(bundle, Order.check(Bundle.open(bundle), backend, precision, None, 1), "weight4")
    else:
        name = build_engine(bundle, backend=backend, precision=precision, threads=1).name
    told = CliRunner().invoke(main, ["inspect", str(bundle), "--engine", name, "--layers", "--json"])
    assert told.exit_code == 0, told.output
    compiled = json.loads(told.output)
    for role, decoder in compiled["roles"].items():
        facts, encoder = Bundle.open(bundle).facts(role), compiled["encoders"][role]
        assert facts.encoder is not None
        assert (decoder["attentions"], encoder["attentions"]) == (2 * facts.layers, facts.encoder.layers)
        assert [profile["profile"] for profile in encoder["profiles"]] == ["read"]
        types = "fp16 x int4" if precision == "int8-weights" else precision
        for profile in (*decoder["profiles"], *encoder["profiles"]):
            assert set(profile["products"]) == {types}, (role, profile["profile"])


def test_a_bundle_is_compiled_and_says_what_became_of_it(bundle: Path) -> None:
    arguments = ["build-engine", str(bundle), "--backend", "tensorrt-rtx", "--precision", "bf16", "--threads", "1"]
    built = CliRunner().invoke(main, [*arguments, "--compute-capability", "8.6,8.9"])
    assert built.exit_code == 0, built.output
    name = "tensorrt-rtx-cuda-bf16"
    assert "and not timed yet: there is no GPU here." in built.output
    assert f"Next, where there is a GPU for it: specbeam build-engine {bundle} --finish {name}" in built.output
    layers = CliRunner().invoke(main, ["inspect", str(bundle), "--engine", name, "--layers", "--json"])
    told = json.loads(layers.output)
    assert [profile["profile"] for profile in told["roles"]["target"]["profiles"]] == ["prefill+verify", "verify"]
    opened = CliRunner().invoke(main, ["infer", str(bundle), "none.jsonl", "--engine", name, "--output", "out"])
    assert opened.exit_code == 1
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "--overwrite" in again.output
