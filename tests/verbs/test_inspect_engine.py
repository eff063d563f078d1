"""inspect --engine: one engine's facts, and what TensorRT's compiler made of its graphs."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands import bad, good
from layer_cases import LOG
from specbeam.engines.bundle.checksums import file_facts
from specbeam.engines.bundle.facts import ENGINE_FACTS, EngineFacts
from specbeam.engines.bundle.sealed import sealed
from specbeam.engines.tensorrt.layers import LAYERS, layers_of_log, write_layers
from tiny_bundle import ENGINE, Tiny
from trt_cases import facts_of

PLANS = "tensorrt-cuda-fp16"


@pytest.fixture
def plans(bundle: Path) -> Path:
    """A folder that says to be an engine of TensorRT; its layers are of another model."""
    folder = bundle / "engines" / PLANS
    for role in ("target", "draft"):
        (folder / role).mkdir(parents=True)
        write_layers(folder / role, layers_of_log(LOG))
    seal(bundle)
    return folder


def seal(bundle: Path) -> None:
    """Write its engine.json, by that of the engine on the CPU."""
    folder = bundle / "engines" / PLANS
    said: dict[str, Any] = json.loads((bundle / "engines" / ENGINE / ENGINE_FACTS).read_text())
    (folder / ENGINE_FACTS).unlink(missing_ok=True)
    said |= {"backend": "tensorrt", "device": "cuda", "precision": "fp16", "versions": {"tensorrt": "11.4.0"}}
    said["files"] = msgspec.to_builtins(file_facts(folder))
    for role in said["roles"].values():
        role |= {"precision": "fp16", "cache": "fp16", "tensorrt": msgspec.to_builtins(facts_of("11.4.0"))}
    (folder / ENGINE_FACTS).write_bytes(sealed(msgspec.convert(said, EngineFacts)))


def test_one_engine(tiny: Tiny) -> None:
    told = good("inspect", tiny.bundle, "--engine", ENGINE).stdout
    assert told.startswith(f"engine     {ENGINE}, the default (onnxruntime ")
    assert "\n  target (fp32): ms a call (batch 1), differs" in told
    assert {f"  {line}" for line in told.splitlines()} <= set(good("inspect", tiny.bundle).stdout.splitlines())
    said = json.loads(good("inspect", tiny.bundle, "--engine", ENGINE, "--json").stdout)
    assert said == json.loads(good("inspect", tiny.bundle, "--json").stdout)["engines"][ENGINE]


def test_what_the_compiler_made_of_it(bundle: Path, plans: Path) -> None:
    told = good("inspect", bundle, "--engine", PLANS, "--layers").stdout
    assert told.startswith(f"{PLANS}: what TensorRT 11.4.0 made of it\n  target, fp16: 9 layers\n")
    assert "    prefill+verify: fused attentions 1 fp16; matrix products 2 fp16; other kernels 0; " in told
    assert told.count("      not fused: 2 of 2 attentions\n") == 1  # of the target's two, behind the first profile
    assert told.count("      not fused: 1 of 2 attentions\n") == 1
    assert told.count("      not fused: 1 of 1 attentions\n") == 1  # of the draft's one
    said = json.loads(good("inspect", bundle, "--engine", PLANS, "--layers", "--json").stdout)
    assert (said["engine"], list(said["roles"])) == (PLANS, ["target", "draft"])
    draft = said["roles"]["draft"]
    assert (draft["attentions"], [profile["not_fused"] for profile in draft["profiles"]]) == (1, [0, 1])
    assert draft["layers"][2]["weights"] == ["fp16"]


def test_names_alone(bundle: Path, plans: Path) -> None:
    named = [msgspec.structs.replace(layer, kind="") for layer in layers_of_log(LOG)]
    for layers in (named, []):
        write_layers(plans / "draft", layers)
        seal(bundle)
        told = good("inspect", bundle, "--engine", PLANS, "--layers").stdout
        assert told.endswith(
            f"  draft, fp16: {len(layers)} layers\n"
            "    their kinds are not known: the plan was built without its layers' details\n"
        )


def test_engines_without_layers(bundle: Path, plans: Path) -> None:
    message = bad("inspect", bundle, "--engine", ENGINE, "--layers")
    assert f"{ENGINE} is an engine of onnxruntime, of which no layers are kept; expected one of TensorRT" in message
    (plans / "draft" / LAYERS).unlink()
    message = bad("inspect", bundle, "--engine", PLANS, "--layers")
    assert "draft/layers.json is missing. Write it again with: specbeam build-engine" in message
    seal(bundle)  # as an earlier version built it
    message = bad("inspect", bundle, "--engine", PLANS, "--layers")
    assert "draft/layers.json is absent: what the compiler made of this graph was not kept" in message
    assert f"Build it again with: specbeam build-engine {bundle} --backend tensorrt --device cuda" in message
    (plans / "target" / LAYERS).write_text("{}")
    assert "target/layers.json has 2 bytes, expected" in bad("inspect", bundle, "--engine", PLANS, "--layers")


def test_misuse(tiny: Tiny) -> None:
    assert f"the name of an engine, too (built: {ENGINE})" in bad("inspect", tiny.bundle, "--layers")
    assert f"has no engine 'x' (built: {ENGINE})" in bad("inspect", tiny.bundle, "--engine", "x", "--layers")
    assert "is not a bundle" in bad("inspect", tiny.bundle / "target", "--engine", ENGINE)
    for other in (["--checksums"], ["--check", "tensorrt"]):
        message = bad("inspect", tiny.bundle, "--engine", ENGINE, *other)
        assert f"got {other[0]} and --engine; expected one of them" in message
        assert f"got {other[0]} and --layers" in bad("inspect", tiny.bundle, "--layers", *other)
