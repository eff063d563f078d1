"""The bundle on disk: it opens whole, or says what is wrong with it and what to do."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from msgspec.structs import replace

from specbeam.catalog.errors import BundleError, EngineError
from specbeam.catalog.extras import install
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.catalog.trie_file import save_trie
from specbeam.engines import installed
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.facts import file_facts
from specbeam.engines.bundle.inspect import describe, describe_json
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import Sealed, sealed, to_json
from specbeam.engines.registry import load_engine
from specbeam.runtime import Recommender
from tiny_bundle import ENGINE, Tiny, edit_engine, edit_manifest

REBUILD = r"Run: specbeam build-engine \S+ --backend onnxruntime --device cpu --overwrite"


def flip(path: Path, bits: int = 1, at: float = 0.5) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= bits
    path.write_bytes(data)


def test_a_whole_bundle_opens(tiny: Tiny) -> None:
    bundle = Bundle.open(str(tiny.bundle))
    manifest = bundle.manifest
    assert (manifest.items, manifest.identifier_length, manifest.precision) == (40, 3, "fp32")
    assert (manifest.end_token, manifest.scoring, manifest.max_top_k) == (None, "full", 200)
    assert manifest.max_prompt_tokens == 32 - 3 + 1
    assert bundle.catalog() == Catalog.load(tiny.index, tiny.items)
    assert bundle.catalog().titles[:2] == ("Title 0", None)
    assert (bundle.trie().identifiers, len(bundle.trie().vocabulary)) == (manifest.identifiers, manifest.catalog_tokens)
    assert bundle.facts("target").layers == 2
    assert bundle.facts("draft").layers == 1
    assert bundle.graph("draft") == tiny.bundle / "draft/model.onnx"
    assert (bundle.folder("target/checkpoint") / "model.safetensors").is_file()
    assert bundle.engine_names() == [ENGINE]
    assert default_engine(bundle) == ENGINE
    assert file_facts(tiny.bundle / "target")["model.onnx"] == manifest.files["target/model.onnx"]
    assert bundle.prompts(bundle.trie()).max_items == tiny.fits
    with pytest.raises(BundleError, match=r"has no file nothing; it has: catalog/items.jsonl, "):
        bundle.file("nothing")
    with pytest.raises(BundleError, match=r"has no draft/other: it was left out at export"):
        bundle.folder("draft/other")


def test_the_trie_comes_back_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trie = ItemTrie.build(rng.integers(0, 9, (200, 4)))
    save_trie(trie, tmp_path / "trie.safetensors")
    manifest = Bundle.open(tiny.bundle).manifest
    files = {"catalog/trie.safetensors": file_facts(tmp_path)["trie.safetensors"]}
    (tmp_path / "catalog").mkdir()
    (tmp_path / "trie.safetensors").rename(tmp_path / "catalog/trie.safetensors")
    sizes = {"items": 200, "identifiers": trie.identifiers, "identifier_length": 4, "catalog_tokens": 9}
    back = Bundle(tmp_path, replace(manifest, files=files, max_prompt_tokens=29, **sizes)).trie()
    for field in fields(trie):
        before, after = getattr(trie, field.name), getattr(back, field.name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_prompts_hold_identifiers_without_their_end_token(tiny: Tiny) -> None:
    trie = ItemTrie.build(np.array([[10, 11, 3], [11, 3, PAD], [12, 11, 3]]))
    manifest = Bundle.open(tiny.bundle).manifest
    for end, expected in ((3, [2, 10, 11, 11, 12, 11]), (None, [2, 10, 11, 3, 11, 3, 12, 11, 3])):
        bundle = Bundle(tiny.bundle, replace(manifest, end_token=end, max_prompt_tokens=9))
        assert bundle.prompts(trie).encode([0, 1, 2]).ids.tolist() == expected
    encoder = Bundle(tiny.bundle, replace(manifest, end_token=3, max_prompt_tokens=5)).prompts(trie)
    assert encoder.encode([0, 1, 2]).ids.tolist() == [2, 11, 12, 11]


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"absent is not a bundle: it has no manifest\.json\. Make one with: specbeam"
    ):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"is not a bundle"):
        Bundle.open(tmp_path)


def test_another_schema(bundle: Path) -> None:
    """Told before anything else of the file is judged: a later schema may look different."""
    (bundle / MANIFEST).write_text('{"schema_version": 1, "files": "elsewhere"}')
    with pytest.raises(BundleError, match=r"manifest\.json has schema version 1, this SpecBeam reads 2\. Write"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b'{"schema_version": 2, "specbeam_version": "0.1', "truncated"),
        (b'{"specbeam_version": "0.1.0"}', "missing required field `schema_version`"),
        (b'{"schema_version": 2}', "missing required field"),
        (b'{"schema_version": 2, "specbeam_version": "\xff"}', "utf-8"),
        (b'{"schema_version": 2, "x": ' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_manifest(bundle: Path, content: bytes, message: str) -> None:
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(
        BundleError, match=rf"(?i)manifest\.json is damaged: .*{message}.*Write it again with: specbeam"
    ):
        Bundle.open(bundle)


def test_an_unknown_key_in_the_manifest(bundle: Path) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    content["scoring_temperature"] = 2
    (bundle / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"damaged: .*unknown field `scoring_temperature`"):
        Bundle.open(bundle)


@pytest.mark.parametrize("bits", [1, 2, 128])
def test_a_flipped_byte_anywhere_in_the_manifest(bundle: Path, bits: int) -> None:
    data = (bundle / MANIFEST).read_bytes()
    for at in range(0, len(data), 101):
        if data[at : at + 1].isspace():
            continue
        flip(bundle / MANIFEST, bits, at / len(data) + 1e-9)
        with pytest.raises(BundleError, match=r"manifest\.json (is damaged|has schema version)"):
            Bundle.open(bundle)
        (bundle / MANIFEST).write_bytes(data)
    Bundle.open(bundle)


def test_white_space_is_no_damage(bundle: Path) -> None:
    (bundle / MANIFEST).write_text(json.dumps(json.loads((bundle / MANIFEST).read_text())))
    Bundle.open(bundle)


@pytest.mark.parametrize(
    ("file", "use"),
    [
        ("catalog/items.jsonl", lambda bundle: bundle.catalog()),
        ("catalog/trie.safetensors", lambda bundle: bundle.trie()),
        ("target/model.onnx", lambda bundle: bundle.graph("target")),
        ("draft/model.onnx", lambda bundle: bundle.graph("draft")),
        ("target/checkpoint/model.safetensors", lambda bundle: bundle.folder("target/checkpoint")),
        (f"engines/{ENGINE}/target/model.onnx", lambda bundle: Recommender.open(bundle)),
        (f"engines/{ENGINE}/draft/model.onnx", lambda bundle: Recommender.open(bundle)),
        ("catalog/items.jsonl", Recommender.open),
        ("catalog/trie.safetensors", Recommender.open),
    ],
)
def test_every_file_that_is_used_is_checked(bundle: Path, file: str, use: Callable[[Bundle], object]) -> None:
    command = "specbeam build-engine" if file.startswith("engines") else "specbeam export"
    use(Bundle.open(bundle))
    flip(bundle / file)
    with pytest.raises(BundleError, match=rf"{file} is damaged: its SHA-256 is .* Write it again with: {command} "):
        use(Bundle.open(bundle))
    (bundle / file).write_bytes((bundle / file).read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{file} has \d+ bytes, expected \d+\. Write it again with: {command} "):
        use(Bundle.open(bundle))
    (bundle / file).unlink()
    with pytest.raises(BundleError, match=rf"{file} is missing\. Write it again with: {command} "):
        use(Bundle.open(bundle))


def test_a_bundle_without_a_draft(bundle: Path) -> None:
    edit_manifest(bundle, draft=None)
    with pytest.raises(BundleError, match=r"has no draft model\. Leave it out"):
        Recommender.open(bundle, drafting="model")
    with pytest.raises(BundleError, match=r"has no draft model"):
        Bundle.open(bundle).graph("draft")
    assert len(Recommender.open(bundle).recommend([["1"]], 3)[0].items) == 3
    assert "draft      none" in describe(bundle)


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
    edit_engine(bundle, lambda facts: facts["files"].pop("target/model.onnx"))
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
