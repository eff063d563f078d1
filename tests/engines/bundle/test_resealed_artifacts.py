"""Manifests, engines, tunings and pools whose checksums fit, and whose content cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from benchmarks.reliability.fuzz_artifacts import Artifacts
from benchmarks.reliability.fuzz_mutations import resealed
from specbeam.catalog.errors import BundleError, EngineError, PoolError, SpecBeamError
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.checksums import file_facts
from specbeam.engines.bundle.facts import EngineFacts
from specbeam.engines.bundle.items import Bundle, Manifest
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import sealed
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.graphs.files import load_graph
from specbeam.pools.files import write_arrays, write_facts
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.pool import TextPool
from specbeam.pools.texts.read import Text
from specbeam.runtime.planning.tuning_file import Tuning
from tiny_bundle import Tiny


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["prompt"].update(prefix_ids=[64]), "prompt has token 64"),
        (lambda c: c["prompt"].update(suffix_ids=[-1]), "int` >= 0"),
        (lambda c: c["prompt"].update(history_length=0), "int` >= 1"),
        (lambda c: c.update(max_prompt_tokens=63), "exceed the context of 64 positions"),
        (lambda c: c.update(max_prompt_tokens=0), "int` >= 1"),
        (lambda c: c.update(max_top_k=2**64), "<="),
        (lambda c: c["target"].update(layers=10**9), "<= 10000"),
        (lambda c: c["draft"].update(vocabulary=1), "prompt has token 2"),
    ],
)
def test_manifests(made: Artifacts, change: Callable[[Any], object], told: str) -> None:
    content = msgspec.json.decode(sealed(made.manifest))
    change(content)
    (made.folder / MANIFEST).write_bytes(resealed(msgspec.json.encode(content), Manifest))
    with pytest.raises(BundleError, match=rf"manifest\.json is damaged: .*{told}.* Write it again with: specbeam"):
        Bundle.open(made.folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["roles"]["target"]["latency"][0].update(batch=0), "int` >= 1"),
        (lambda c: c["roles"]["target"]["latency"][0].update(milliseconds=-1.0), "float` > 0"),
        (lambda c: c["roles"]["draft"].update(latency=[]), "compared and not timed"),
        (lambda c: c["roles"]["draft"].update(latency=[], max_difference=None), "it has no latency; only what is"),
        (lambda c: c["roles"].pop("target"), "expected a target"),
        (lambda c: c["roles"].update(other=c["roles"]["draft"]), "Invalid enum value 'other'"),
        (lambda c: c.update(threads=2**64), "<="),
        (lambda c: c.update(backend="tensorrt"), "does not say what its TensorRT plans were built for"),
        (lambda c: c["roles"]["target"].update(latency=[
            {"batch": i + 1, "past": i, "new": i + 1, "milliseconds": 1.0} for i in range(50)
        ]), "no grid"),
    ],
)  # fmt: skip
def test_engines(made: Artifacts, change: Callable[[Any], object], told: str) -> None:
    content = msgspec.json.decode(sealed(made.engine))
    change(content)
    data = resealed(msgspec.json.encode(content), EngineFacts)
    with pytest.raises(BundleError, match=rf"engine\.json is damaged: .*{told}.* Write it again with: specbeam build"):
        made.planned(data, sealed(made.tuning))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["acceptance"]["widths"][0]["levels"][0]["trials"].__setitem__(0, 2**64),
        lambda c: c["acceptance"]["widths"][0]["levels"][0]["found"].__setitem__(0, -1),
        lambda c: c["acceptance"]["widths"][0]["levels"][0]["complete"].__setitem__(0, 25),
        lambda c: c["acceptance"]["widths"][0]["depths"][1].update(idle=25),
        lambda c: c["acceptance"]["widths"][0].update(k=0),
        lambda c: c["acceptance"]["grid"].append(200),
        lambda c: c["fits"]["target"].update(scale=0.0),
        lambda c: c["fits"]["draft"].update(host_node_ms=-1.0),
        lambda c: c.update(threads=0),
    ],
)
def test_tunings(made: Artifacts, change: Callable[[Any], object]) -> None:
    content = msgspec.json.decode(sealed(made.tuning))
    change(content)
    data = resealed(msgspec.json.encode(content), Tuning)
    with pytest.raises(BundleError, match=r"tuning-strict-full\.json.* specbeam tune \S+ HISTORIES --engine "):
        made.planned(sealed(made.engine), data)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("order", lambda a: np.where(np.arange(len(a)) == 3, 10_000, a), "places that are not there"),
        ("order", lambda a: np.where(np.arange(len(a)) == 3, -1, a), "places that are not there"),
        ("order", lambda a: np.where(np.arange(len(a)) == 3, a[4], a), "every place once"),
        ("order", lambda a: a[:-1], "places and"),
        ("tokens", lambda a: a[:-1], "tokens are not those"),
        ("tokens", lambda a: a[::-1], "tokens are not those"),
        ("pairs", lambda a: a[::-1], "pairs do not ascend"),
        ("pairs", lambda a: a + 1, "not those that its places begin with"),
        ("starts", lambda a: np.where(np.arange(len(a)) == 1, 2**31 - 1, a), "do not share out"),
        ("member_keys", lambda a: a[::-1], "members are not sorted"),
        ("member_groups", lambda a: a + 9, "in no group"),
        ("tokens", lambda a: a.astype(np.int64), r"names the arrays .*tokens \(<i8\)"),
        ("order", lambda a: a[None], r"order \(<i4.*\(1, "),
    ],
)
def test_pools_of_texts(tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], told: str) -> None:
    texts = [Text(f"u{i}", [1 + (i * j) % 7 for j in range(1, 9)]) for i in range(6)]
    groups = {"u1": "a", "u2": "b", "u3": "a"}
    facts = build_text_pool(texts, tmp_path / "pool", tokenizer_sha256="abc", reach=6, groups=groups)
    assert TextPool.open(tmp_path / "pool").highest == 7
    before = np.load(tmp_path / "pool" / f"{name}.npy")
    after = change(before)
    array = np.ascontiguousarray(after.astype(before.dtype) if "<i8" not in told else after)
    arrays = {**facts.arrays, **write_arrays(tmp_path / "pool", {name: array})}
    write_facts(tmp_path / "pool", replace(facts, arrays=arrays))
    with pytest.raises(PoolError, match=rf"{told}.* Build the pool again with: specbeam build-pool"):
        TextPool.open(tmp_path / "pool")


def test_a_pool_names_files_of_its_own_only(tmp_path: Path) -> None:
    facts = build_text_pool([Text("u", [1, 2])], tmp_path / "pool", tokenizer_sha256="abc", reach=6)
    write_arrays(tmp_path, {"tokens": np.zeros(3, np.uint32)})
    for name in ("../tokens", "/tokens", "a/tokens"):
        content = msgspec.json.decode(sealed(facts))
        content["arrays"][name] = content["arrays"]["tokens"]
        (tmp_path / "pool" / "pool.json").write_bytes(msgspec.json.encode(content))
        with pytest.raises(PoolError, match="expected the name of a file in the pool"):
            TextPool.open(tmp_path / "pool")


def seal_graph(bundle: Path, name: str = "target/model.onnx") -> None:
    """Let the manifest have the graph as it is now."""
    manifest = Bundle.open(bundle).manifest
    files = {**manifest.files, name: file_facts(bundle)[name]}
    (bundle / MANIFEST).write_bytes(sealed(replace(manifest, files=files)))


@pytest.mark.parametrize("location", ["../../outside", "/etc/hostname", "nothing"])
def test_weights_outside_a_bundle(bundle: Path, location: str) -> None:
    (bundle.parent / "outside").write_bytes(b"\0" * 10**6)
    graph = onnx.load(bundle / "target/model.onnx")
    weight = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
    onnx.external_data_helper.set_external_data(weight, location, offset=0, length=len(weight.raw_data))
    weight.ClearField("raw_data")
    (bundle / "target/model.onnx").write_bytes(graph.SerializeToString())
    seal_graph(bundle)
    with pytest.raises(EngineError, match=r"target/model\.onnx cannot be read as a graph, its weights included: "):
        build_engine(bundle, precision="fp16", threads=1, overwrite=True)
    with pytest.raises(EngineError, match=r"cannot load .* export again"):
        load_ort_engine(
            bundle / "target/model.onnx", Bundle.open(bundle).facts("target"), device="cpu", precision="fp32", threads=1
        )


def test_graphs_that_are_none(tmp_path: Path, tiny: Tiny) -> None:
    data = (tiny.bundle / "target/model.onnx").read_bytes()
    facts = Bundle.open(tiny.bundle).facts("target")
    for content in (b"", b"no graph", data[: len(data) // 2]):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(SpecBeamError):
            load_ort_engine(tmp_path / "model.onnx", facts, device="cpu", precision="fp32", threads=1)
    (tmp_path / "model.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(EngineError, match="cannot be read as a graph"):
        load_graph(tmp_path / "model.onnx")


def test_graphs_of_other_models(tiny: Tiny) -> None:
    bundle = Bundle.open(tiny.bundle)
    graph, facts, columns = bundle.graph("target"), bundle.facts("target"), bundle.manifest.columns
    for changes, columns_, told in (
        ({"layers": 3}, columns, r"past_key_values\.2\.key is missing"),
        ({"layers": 1}, columns, r"past_key_values\.1\.key is not expected"),
        ({"head_dim": 16}, columns, r"past_key_values\.0\.key is tensor\(float\) .*, 8\], expected .*, 16\]"),
        ({"kv_heads": 1}, columns, "expected"),
        ({}, columns + 1, "output logprobs is"),
    ):
        with pytest.raises(EngineError, match=rf"is no graph of this model: the (in|out)put .*{told}|{told}"):
            load_ort_engine(
                graph, replace(facts, **changes), device="cpu", precision="fp32", threads=1, columns=columns_
            )
    with pytest.raises(EngineError, match=r"attention_mask is tensor\(float\)"):
        load_ort_engine(graph, facts, device="cpu", precision="fp16", threads=1)
