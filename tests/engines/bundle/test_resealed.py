"""Artifacts whose checksums fit, and whose content cannot be: refused when they are read, with the remedy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import load_file, save_file

from benchmarks.reliability.fuzz_artifacts import Artifacts
from specbeam.catalog.errors import BundleError
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import PAD, ItemTrie
from specbeam.catalog.trie_file import check_agreement, load_trie, save_trie
from specbeam.engines.bundle.checksums import file_facts
from specbeam.engines.bundle.items import CATALOG_FILE, TRIE_FILE, Bundle
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import sealed


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
        with pytest.raises(
            BundleError, match=r"items\.safetensors is of another catalog than .*items 'i.* Write both "
        ):
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
