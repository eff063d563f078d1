"""Artifacts whose checksums fit, and whose content cannot be: refused when they are read, with the remedy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file

from artifact_targets import Artifacts, resealed
from specbeam.catalog.errors import BundleError, EngineError, PoolError, SpecBeamError
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.catalog.trie_file import check_agreement, load_trie, save_trie
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.facts import EngineFacts, file_facts
from specbeam.engines.bundle.items import CATALOG_FILE, TRIE_FILE, Bundle, Manifest
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


@pytest.fixture
def made(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "bundle")


def reopened(made: Artifacts) -> Bundle:
    """The bundle as it is on disk, its hashes made to fit."""
    files = {name: facts for name, facts in file_facts(made.folder).items() if name.startswith("catalog/")}
    (made.folder / MANIFEST).write_bytes(sealed(replace(made.manifest, files=files)))
    return Bundle.open(made.folder)


def rewrite(made: Artifacts, catalog: Catalog) -> None:
    (made.folder / CATALOG_FILE).unlink()
    catalog.save(made.folder / CATALOG_FILE)


def put(array: str, at: int, value: int) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[array] = arrays[array].copy()
        arrays[array][at] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("first_child", 0, 2), "first children are not where"),
        (put("first_child", 1, -7), "first children are not where"),
        (put("child_count", 1, 2**31 - 1), "nodes do not have"),
        (put("child_count", 2, -1), "nodes do not have"),
        (put("parent", 9, 9), "do not follow the order of their parents"),
        (put("parent", 1, 2**31 - 1), "do not follow the order of their parents"),
        (put("depth", 3, 0), "depths of its nodes"),
        (put("level_start", 2, 1), "levels do not fill"),
        (put("level_start", -1, 2**31 - 1), "levels do not fill"),
        (put("column", 2, 10_000), "columns beyond"),
        (put("column", 2, -1), "columns beyond"),
        (put("column", 2, 0), "siblings do not ascend"),
        (put("item_offset", -1, 10_000), "are to have items"),
        (put("item_offset", 3, 5), "are to have items"),
        (put("item", 4, -2), "do not share out"),
        (put("item", 4, 2**31 - 1), "do not share out"),
        (put("item", 0, 1), "do not share out|catalog order"),
        (put("vocabulary", 0, -5), "tokens do not ascend"),
        (put("vocabulary", -1, 2**40), "tokens up to"),
        (lambda arrays: arrays.pop("depth"), r"it holds .*expected child_count \(I32\), column"),
        (lambda arrays: arrays.update(depth=arrays["depth"].astype(np.int64)), r"depth \(I64\)"),
        (lambda arrays: arrays.update(parent=arrays["parent"][:-1]), "expected as many of each node"),
        (lambda arrays: arrays.update(item=arrays["item"][None]), "one axis each"),
        (lambda arrays: arrays.update(level_start=arrays["level_start"][:1]), "expected as many of each node"),
    ],
)  # fmt: skip
def test_tries(made: Artifacts, change: Callable[[dict[str, np.ndarray]], object], told: str) -> None:
    arrays = load_file(made.folder / TRIE_FILE)
    change(arrays)
    save_file(arrays, made.folder / TRIE_FILE)
    with pytest.raises(
        BundleError, match=rf"trie.safetensors (is damaged: |has ).*({told}).* Write it again with: spec"
    ):
        reopened(made).trie()


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8 + b"{}", (2**40).to_bytes(8, "little") + b"{}", b"\2" + b"\0" * 7 + b"{}"]
)
def test_files_that_are_no_tries(made: Artifacts, content: bytes) -> None:
    """A header of an absurd size among them."""
    (made.folder / TRIE_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"is damaged: it (cannot be read|holds)"):
        reopened(made).trie()


def test_random_tries_are_sound(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for length in (1, 2, 5):
        rows = rng.integers(0, 5, (60, length))
        ragged = np.pad(rows + 3, ((0, 0), (0, 1)), constant_values=1)
        ragged[::2, -2:] = 1, PAD
        for trie in (ItemTrie.build(rows), ItemTrie.build(ragged if length > 1 else rows)):
            save_trie(trie, tmp_path / "trie")
            np.testing.assert_array_equal(load_trie(tmp_path / "trie").item_tokens(), trie.item_tokens())


def test_a_trie_of_another_size_than_the_manifest_says(made: Artifacts) -> None:
    save_trie(ItemTrie.build(np.arange(10, 22).reshape(4, 3)), made.folder / TRIE_FILE)
    with pytest.raises(BundleError, match=r"has 4 items, 4 identifiers of at most 3 tokens, 12 distinct tokens; "):
        reopened(made).trie()


def test_items_of_another_catalog(made: Artifacts) -> None:
    own = made.catalog
    for identifiers in (
        own.identifiers[::-1],  # in another order
        (own.identifiers[1], own.identifiers[0], *own.identifiers[2:]),  # two items changed places
        (("<x>", *own.identifiers[0][1:]), *own.identifiers[1:]),
        (("<10> <18> <26>",), *own.identifiers[1:2] * 2, *own.identifiers[3:]),  # as if they were text
    ):
        rewrite(made, Catalog(own.item_ids, identifiers, own.titles))
        with pytest.raises(BundleError, match=r"items\.jsonl is of another catalog than .*items 'i.* Write both "):
            reopened(made).items()
    rewrite(made, Catalog(own.item_ids[1:], own.identifiers[1:], own.titles[1:]))
    with pytest.raises(BundleError, match="the catalog has 39 items, the trie 40"):
        reopened(made).items()
    rewrite(made, own)
    reopened(made).items()


def test_text_and_end_tokens_agree() -> None:
    trie = ItemTrie.build(np.array([[5, 6, 1], [5, 1, PAD], [7, 8, 1], [5, 6, 1]]))
    words = ("ab",), ("a",), (" c", "d"), ("ab",)
    check_agreement(Catalog(("a", "b", "c", "d"), words, (None,) * 4), trie, 1)
    assert trie.ends_with(1)
    assert not trie.ends_with(6)
    assert not trie.ends_with(5)
    assert not ItemTrie.build(np.array([[5], [1]])).ends_with(1)


NAMES = ["target/../../x", "/etc/hostname", "..", "a//b", "", "a\\b", "./a", "a/.", "C:x", "a\0b", "x" * 300, "a\n"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_that_lead_out(made: Artifacts, name: str) -> None:
    """Refused when the JSON is read: nothing is opened or hashed by such a name."""
    engine = made.folder / "engines/onnxruntime-cpu-fp32/engine.json"
    for path, content in ((made.folder / MANIFEST, made.manifest), (engine, made.engine)):
        whole, raw = path.read_bytes(), msgspec.json.decode(sealed(content))
        raw["files"][name] = {"sha256": "0" * 64, "bytes": 1}
        path.write_bytes(msgspec.json.encode(raw))
        with pytest.raises(BundleError, match=r"is damaged: the file name .* is not one inside the folder"):
            Bundle.open(made.folder).engine_facts("onnxruntime-cpu-fp32")
        path.write_bytes(whole)


def test_links_that_lead_out(made: Artifacts, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copy(made.folder / TRIE_FILE, outside)
    (made.folder / TRIE_FILE).unlink()
    (made.folder / TRIE_FILE).symlink_to(outside)
    with pytest.raises(BundleError, match=r"is a link out of \S+, which is not followed"):
        Bundle.open(made.folder).trie()
    (made.folder / TRIE_FILE).unlink()
    os.rename(outside, made.folder / "catalog/kept")
    (made.folder / TRIE_FILE).symlink_to("kept")
    (tmp_path / "alias").symlink_to(made.folder)
    assert len(Bundle.open(tmp_path / "alias").trie().item) == 40  # a link within, in a bundle that is one itself
    with pytest.raises(BundleError, match="has no engine"):
        Bundle.open(made.folder).engine_facts("../engines/onnxruntime-cpu-fp32")


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
        (lambda c: c["roles"]["draft"].update(latency=[]), "length >= 1"),
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
