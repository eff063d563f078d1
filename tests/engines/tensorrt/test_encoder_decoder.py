"""Encoder-decoders in TensorRT's plans, on the stand-ins for both flavours."""

import gc
import json
import shutil
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import fake_tensorrt
import fake_tensorrt_rtx
import trt_loop
from encoder_decoder_cases import Talk, check_talk
from fake_cuda import FakeCuda
from quick_builds import few_timings
from specbeam.catalog.errors import EngineError
from specbeam.cli import main
from specbeam.engines import registry
from specbeam.engines.base import Engine
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.facts import EncoderFacts, EnginePrecision, Limits, ModelFacts
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.finish import finish_engine
from specbeam.engines.registry import load_engine
from specbeam.engines.tensorrt.backend import CallSizes, TensorRTBackend
from specbeam.engines.tensorrt.flavour import RTX, TENSORRT, Flavour
from specbeam.engines.tensorrt.profiles import (
    Profile,
    cache_bytes,
    check_profiles,
    input_axes,
    profiles_for,
    reading_profile,
)

HISTORIES = [["3", "7"], ["1"], ["5", "5", "2"], ["9"], ["4", "8"]]
SIZES = CallSizes(max_batch=8, max_nodes=64)
FACTS = ModelFacts(
    architecture="T5ForConditionalGeneration", parameters=0, layers=3, kv_heads=2, head_dim=16, vocabulary=1000,
    context=512, slot_positions=True, encoder=EncoderFacts(layers=4, start=0),
)  # fmt: skip
LIMITS = Limits(max_batch=8, max_prompt=100, max_nodes=64, path=4)
LENGTH = 4


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins count as installed."""
    versions = {"tensorrt": "10.16", "tensorrt-rtx": "1.7"}
    own = registry.backend_version
    monkeypatch.setattr(registry, "backend_version", lambda name: versions.get(name) or own(name))


def built(bundle: Path, flavour: Flavour, precision: EnginePrecision) -> str:
    with few_timings():
        return build_engine(
            bundle, backend=TensorRTBackend("cuda", SIZES, flavour=flavour), precision=precision, threads=1
        ).name


@pytest.fixture
def own(encoder_decoders: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to build in."""
    return shutil.copytree(encoder_decoders, tmp_path / "bundle")


@pytest.fixture(scope="module")
def plans(encoder_decoders: Path, stand_in: FakeCuda, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an engine in float32."""
    bundle = shutil.copytree(encoder_decoders, tmp_path_factory.mktemp("plans") / "bundle")
    stand_in.reset()
    built(bundle, TENSORRT, "fp32")
    return bundle


def engines(bundle: Path, name: str = "tensorrt-cuda-fp32") -> tuple[Engine, Engine]:
    """The target by TensorRT and by ONNX Runtime."""
    opened = Bundle.open(bundle)
    one, two = (load_engine(opened, "target", engine, threads=1) for engine in (name, "onnxruntime-cpu-fp32"))
    return one, two


def test_a_decoder_begins_with_one_token_and_reads_prompts_of_any_length() -> None:
    first, later = profiles_for("target", FACTS, LIMITS, LENGTH)
    assert first.shapes["input_ids"] == ((1, 1), (4, 33), (8, 65))
    assert first.shapes["past_key_values.2.value"] == ((1, 2, 0, 16), (4, 2, 1, 16), (8, 2, 1, 16))
    assert first.shapes["read_key_values.2.value"] == ((1, 2, 1, 16), (4, 2, 50, 16), (8, 2, 100, 16))
    assert first.shapes["prompt_lengths"] == ((1,), (4,), (8,))
    assert later.shapes["past_key_values.0.key"] == ((1, 2, 1, 16), (4, 2, 32, 16), (8, 2, 256, 16))
    reading = reading_profile(LIMITS)
    assert reading.shapes == {"input_ids": ((1, 1), (4, 50), (8, 100)), "prompt_lengths": ((1,), (4,), (8,))}
    needed = cache_bytes(FACTS, LIMITS, identifier_length=LENGTH, cache="fp16")
    assert needed == 2 * (3 * 2) * 8 * (1 + 4 * 64 + 100) * (2 * 16) * 2


def test_profiles_are_checked_against_both_graphs() -> None:
    def check(profiles: Sequence[Profile], inputs: Mapping[str, Sequence[int | str]], limits: Limits = LIMITS) -> None:
        check_profiles(profiles, FACTS, limits, inputs, identifier_length=LENGTH, cache="fp16")

    first, later = profiles_for("target", FACTS, LIMITS, LENGTH)
    decoder, encoder = input_axes(FACTS, 4), {"input_ids": ("batch", "prompt"), "prompt_lengths": ("batch",)}
    check([first, later], decoder)
    check([reading_profile(LIMITS)], encoder)
    name = "read_key_values.0.key"
    with pytest.raises(EngineError, match=f"prompt of {name} must rise .* Change --max-prompt"):
        check([replace(first, shapes=first.shapes | {name: first.shapes[name][::-1]})], decoder)
    wide = replace(LIMITS, max_prompt=513)
    with pytest.raises(EngineError, match=r"made for prompts of 512 tokens\. Lower it to 512 or less"):
        check(profiles_for("target", FACTS, wide, LENGTH), decoder, wide)


def test_calls_are_those_of_onnx_runtime_whatever_happens_to_the_cache(plans: Path, gpu: FakeCuda) -> None:
    check_talk(*engines(plans), 1e-4)


def test_lists_are_those_of_onnx_runtime(plans: Path, gpu: FakeCuda) -> None:
    assert trt_loop.loop(plans, "tensorrt-cuda-fp32", HISTORIES) == 1


def test_half_precision(own: Path, gpu: FakeCuda) -> None:
    name = built(own, TENSORRT, "fp16")
    check_talk(*engines(own, name), 0.1)
    assert all((role.max_difference or 1) < 0.1 for role in trt_loop.roles(own, name).values())


def test_memory_is_used_again_and_given_back(plans: Path, gpu: FakeCuda) -> None:
    gc.collect()
    before, (engine, _), used = gpu.used, engines(plans), []
    for _ in range(3):
        one = Talk(engine)
        for _ in range(3):
            one.follow(np.array([5, 6, 7]))
        used.append(gpu.used - before)
        del one
    assert used[1:] == used[:1] * 2
    del engine
    gc.collect()
    assert gpu.used == before


def test_prompts_beyond_the_limits_say_which_to_raise(plans: Path, gpu: FakeCuda) -> None:
    engine, _ = engines(plans)
    with pytest.raises(EngineError, match="has an encoder: its caches begin with prompts"):
        engine.new_cache(1)
    longer = TensorRTBackend("cuda", SIZES).limits(Bundle.open(plans)).max_prompt + 1
    with pytest.raises(EngineError, match=rf"read 1 prompts of up to {longer} tokens.*larger --max-prompt than in: "):
        engine.read([np.full(longer, 5)])
    with pytest.raises(EngineError, match=r"read 9 prompts .* takes 8 of up to .*larger --max-batch than in: "):
        engine.read([np.full(2, 5)] * 9)


def test_compiled_ahead_of_time_its_kernels_are_kept_in_one_cache(own: Path, gpu: FakeCuda) -> None:
    gpu.reset(gpus=0)
    name = built(own, RTX, "fp16")
    gpu.reset(capability=(8, 6))
    with few_timings():
        path = finish_engine(own, name, threads=1)
    assert len(list(path.parent.glob("kernels-*"))) == 2
    fake_tensorrt_rtx.IRuntimeCache.loaded.clear()
    assert trt_loop.loop(own, name, HISTORIES[:2]) > 0.9
    assert set(fake_tensorrt_rtx.IRuntimeCache.loaded) == {fake_tensorrt_rtx.KERNELS}
    told = CliRunner().invoke(main, ["inspect", str(own), "--engine", name]).output
    assert "target: compiled for 8.0, 8.6, 8.9, 12.0; valid here" in told
    assert "target's encoder: compiled for 8.0, 8.6, 8.9, 12.0; valid here" in told
    (own / "engines" / name / "draft" / "encoder.plan").write_bytes(b"no plan")
    told = CliRunner().invoke(main, ["inspect", str(own), "--engine", name]).output
    assert "draft/encoder.plan is missing or damaged" in told


def test_both_graphs_are_quantized(own: Path, gpu: FakeCuda) -> None:
    with few_timings():
        name = trt_loop.build_int8(own)
    assert {facts.precision for facts in trt_loop.roles(own, name).values()} == {"int8"}
    for plan in ("model.plan", "encoder.plan"):
        content = fake_tensorrt.content(own / "engines" / name / "draft" / plan)
        graph = onnx.load_model_from_string(b64decode(content["graph"])).graph
        assert "QuantizeLinear" in {node.op_type for node in graph.node}
    assert trt_loop.loop(own, name, HISTORIES) > 0.5


def test_every_graph_is_importable(encoder_decoders: Path) -> None:
    done = CliRunner().invoke(main, ["inspect", str(encoder_decoders), "--check", "tensorrt", "--json"])
    assert done.exit_code == 0, done.output
    ways = ("fp32", "fp16", "bf16", "int8", "int8-weights by weight8", "int8-weights by weight4")
    graphs = ("target", "target's encoder"), ("draft", "draft's encoder")
    names = [f"{graph}, {way}" for role in graphs for way in ways for graph in role]
    assert [check["graph"] for check in json.loads(done.output)] == names
