"""The engines of a bundle: none, several, of another version or model, damaged."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime
import pytest

from bundle_cases import flip
from specbeam.catalog.errors import BundleError, EngineError
from specbeam.catalog.extras import install
from specbeam.engines import installed
from specbeam.engines.bundle.inspect import describe, describe_json
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import Sealed, sealed, to_json
from specbeam.engines.registry import load_engine
from specbeam.runtime import Recommender
from tiny_bundle import ENGINE, Tiny, edit_engine, edit_manifest

REBUILD = r"Run: specbeam build-engine \S+ --backend onnxruntime --device cpu --overwrite"


def test_no_engine_is_built(bundle: Path) -> None:
    shutil.rmtree(bundle / "engines")
    with pytest.raises(BundleError, match=r"has no engine yet\. Build one with: specbeam build-engine \S+bundle$"):
        Recommender.open(bundle)
    with pytest.raises(BundleError, match=r"no engine 'onnxruntime-cuda-fp16' \(built: none\)\. Build one with"):
        Recommender.open(bundle, engine="onnxruntime-cuda-fp16")
    assert "engines    none; build one with: specbeam build-engine" in describe(bundle)


def test_several_engines_are_built(bundle: Path) -> None:
    shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines/onnxruntime-cpu-fp16")
    (bundle / "engines/default.json").unlink()
    with pytest.raises(BundleError, match=rf"several engines.*: onnxruntime-cpu-fp16, {ENGINE}\. Choose one with --e"):
        Recommender.open(bundle)
    assert len(Recommender.open(bundle, engine=ENGINE).recommend([["1"]], 2)[0].items) == 2
    with pytest.raises(BundleError, match=rf"no engine 'tensorrt' \(built: onnxruntime-cpu-fp16, {ENGINE}\)"):
        Recommender.open(bundle, engine="tensorrt")


def test_what_a_killed_build_left_is_no_engine(bundle: Path) -> None:
    shutil.copytree(bundle / "engines" / ENGINE, bundle / f"engines/.{ENGINE}.x1y2.part")
    assert Bundle.open(bundle).engine_names() == [ENGINE]


@pytest.mark.parametrize("version", ["1.2.3", None])
def test_an_engine_of_another_version(bundle: Path, version: str | None) -> None:
    edit_engine(bundle, lambda facts: facts.update(versions={"onnxruntime": version} if version else {}))
    here = onnxruntime.__version__.rpartition(".")[0]
    built = version or "an unknown version"
    with pytest.raises(BundleError, match=rf"was built by onnxruntime {built}, installed is {here}.*{REBUILD}"):
        Recommender.open(bundle)


def test_a_patch_release_is_the_same_version(bundle: Path) -> None:
    version = onnxruntime.__version__.rpartition(".")[0] + ".99"
    edit_engine(bundle, lambda facts: facts.update(versions={"onnxruntime": version}))
    Recommender.open(bundle)


def test_an_engine_of_other_models(bundle: Path) -> None:
    def other(facts: dict[str, Any]) -> None:
        facts["roles"]["draft"]["source_sha256"] = facts["roles"]["target"]["source_sha256"]

    edit_engine(bundle, other)
    with pytest.raises(BundleError, match=rf"was built from another draft than the bundle's\. {REBUILD}"):
        Recommender.open(bundle)


def test_an_engine_that_lacks_a_role(bundle: Path) -> None:
    edit_engine(bundle, lambda facts: facts["roles"].pop("draft"))
    with pytest.raises(BundleError, match=rf"has no draft\. {REBUILD}"):
        Recommender.open(bundle)
    edit_engine(bundle, lambda facts: [facts["files"].pop(f"target/{name}.onnx") for name in ("model", "constrained")])
    with pytest.raises(BundleError, match=r"has no file of the target\. Write it again with: specbeam"):
        Recommender.open(bundle, drafting="none")


def test_an_engine_of_an_unknown_backend_or_device(bundle: Path) -> None:
    edit_engine(bundle, lambda facts: facts.update(device="abacus"))
    with pytest.raises(EngineError, match="onnxruntime backend runs on cpu or cuda; got the device 'abacus'"):
        Recommender.open(bundle)
    edit_engine(bundle, lambda facts: facts.update(backend="abacus"))
    with pytest.raises(EngineError, match="no backend 'abacus'; expected one of: onnxruntime, tensorrt"):
        Recommender.open(bundle)


def test_a_damaged_engine_json(bundle: Path) -> None:
    flip(bundle / "engines" / ENGINE / "engine.json", at=0.4)
    with pytest.raises(BundleError, match=r"engine\.json is damaged.* --backend onnxruntime --device cpu --overwrite"):
        Recommender.open(bundle)


def test_a_backend_that_is_not_installed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(installed.PACKAGES, "onnxruntime", ("no-such-package", "nor-this-one"))
    with pytest.raises(EngineError, match=f"backend is not installed. Run: {re.escape(install('cpu'))}"):
        Recommender.open(tiny.bundle)


@pytest.mark.parametrize("name", ["torch", "torch-tpu-fp32", "torch-cpu-int8"])
def test_names_of_torch_engines(tiny: Tiny, name: str) -> None:
    with pytest.raises(BundleError, match=rf"No engine '{name}': expected torch-<cpu\|cuda>-<fp32\|fp16\|bf16>"):
        load_engine(Bundle.open(tiny.bundle), "target", name, threads=1)


def test_description_of_what_was_chosen(bundle: Path) -> None:
    edit_manifest(bundle, end_token=3, identifier_length=4, max_prompt_tokens=29, scoring="constrained", max_top_k=7)
    text = describe(bundle)
    assert "identifiers of at most 4 tokens (the end token 3 among them), " in text
    assert "requests   scoring constrained where they ask for none, at most 7 items a list" in text


def test_description(tiny: Tiny) -> None:
    text = describe(tiny.bundle)
    for part in (
        "LlamaForCausalLM", "2 layers", "40 items", "last 12 items, at most 30 tokens",
        f"engine     {ENGINE}, the default (onnxrun",
        "target (fp32): ms a call (batch 1)", "draft (fp32): ms a call",
        "identifiers of at most 3 tokens (no end token)",
        "scoring full where they ask for none, at most 200 items a list",
    ):  # fmt: skip
        assert part in text
    content = json.loads(describe_json(tiny.bundle))
    assert content["manifest"] == json.loads((tiny.bundle / MANIFEST).read_text())
    assert content["engines"] == {ENGINE: json.loads((tiny.bundle / "engines" / ENGINE / "engine.json").read_text())}
    assert to_json({"a": [1]}) == b'{\n  "a": [\n    1\n  ]\n}\n'


def test_a_damaged_engine_does_not_hide_the_others(bundle: Path) -> None:
    shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines" / "onnxruntime-cpu-fp16")
    flip(bundle / "engines" / "onnxruntime-cpu-fp16" / "engine.json", at=0.4)
    told = describe(bundle)
    assert "onnxruntime-cpu-fp16: " in told
    assert "engine.json is damaged" in told
    assert "target (fp32): ms a call" in told
    engines = json.loads(describe_json(bundle))["engines"]
    assert "is damaged" in engines["onnxruntime-cpu-fp16"]["error"]
    assert engines[ENGINE]["device"] == "cpu"


def test_what_could_not_be_read_again_is_not_sealed() -> None:
    """JSON has no NaN: it would become null."""
    with pytest.raises(msgspec.ValidationError, match="float"):
        sealed(Number(schema_version=1, value=float("nan")))
    assert json.loads(sealed(Number(schema_version=1, value=0.5)))["value"] == 0.5


class Number(Sealed, frozen=True, kw_only=True):
    value: float
