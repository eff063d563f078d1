"""The bundle on disk: it opens whole, or says what is wrong with it and what to do."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from bundle_cases import flip
from specbeam.catalog.errors import BundleError
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.catalog.trie_file import save_trie
from specbeam.engines.bundle.checksums import file_facts
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.inspect import describe
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.model import MANIFEST
from specbeam.runtime import Recommender
from tiny_bundle import ENGINE, Tiny, edit_manifest


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
    with pytest.raises(BundleError, match=r"has no file nothing; it has: catalog/items.safetensors, "):
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
        ("catalog/items.safetensors", lambda bundle: bundle.catalog()),
        ("catalog/trie.safetensors", lambda bundle: bundle.trie()),
        ("target/model.onnx", lambda bundle: bundle.graph("target")),
        ("draft/model.onnx", lambda bundle: bundle.graph("draft")),
        ("target/checkpoint/model.safetensors", lambda bundle: bundle.folder("target/checkpoint")),
        (f"engines/{ENGINE}/target/model.onnx", lambda bundle: Recommender.open(bundle)),
        (f"engines/{ENGINE}/draft/model.onnx", lambda bundle: Recommender.open(bundle)),
        ("catalog/items.safetensors", Recommender.open),
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
