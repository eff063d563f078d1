"""Pools and what else is read from files of ours, as targets of `fuzz.py`."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from benchmarks.reliability.fuzz_artifacts import MODEL
from benchmarks.reliability.fuzz_mutations import (
    Target,
    changed,
    changed_tensors,
    documents,
    facts_of,
    raw_bytes,
)
from fuzzing import mutated
from specbeam.align.teaching.trees import SEAL, TeacherSettings, Trees, TreeStore, _digest
from specbeam.calib.ranges import load_ranges
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.bundle.facts import FileFacts
from specbeam.engines.bundle.inspect import describe
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import sealed
from specbeam.engines.bundle.texts import TextBundle, TextManifest, TextPrompt
from specbeam.pools import TextDrafting, propose
from specbeam.pools.files import POOL_FILE, PoolFacts, read_facts, write_facts
from specbeam.pools.groups.file import read_groups
from specbeam.pools.items.build import build_item_pool
from specbeam.pools.items.pool import ItemPool, ItemPoolFacts
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.pool import TextPool, TextPoolFacts
from specbeam.pools.texts.read import Text
from specbeam.pools.texts.tokenizer import fingerprint, load
from specbeam.runtime.drafting.retrieval import CatalogPool

DRAFTING = TextDrafting(depth=4, query=2, draft_tokens=20)


def pool_targets(folder: Path, catalog: Catalog, trie: ItemTrie) -> list[Target]:
    """Pools of both kinds."""
    histories = [HistoryRequest(f"u{i}", tuple(f"i{(i * j) % 40}" for j in range(1, 6)), 1) for i in range(12)]
    groups = {f"u{i}": "ab"[i % 2] for i in range(9)}
    folder.mkdir(parents=True)
    (folder / "groups.json").write_text(json.dumps(groups))
    build_item_pool(histories, folder / "items", groups=folder / "groups.json")
    texts = [Text(f"u{i}", [1 + (i * j) % 7 for j in range(1, 9)]) for i in range(12)]
    build_text_pool(texts, folder / "texts", tokenizer_sha256="abc", reach=DRAFTING.reach, groups=groups)

    def use_items(path: Path) -> None:
        read = CatalogPool(ItemPool.open(path), catalog, trie)
        read.pool.rows(np.arange(len(read.pool.ids)))
        read.pool.group_of("u1")

    def use_texts(path: Path) -> None:
        pool = TextPool.open(path)
        sources = [[pool.source(group)] for group in (None, *pool.groups)]
        propose([[1, 2]] * len(sources), sources, DRAFTING)
        pool.group_of("u1")

    found = []
    kinds: Sequence[tuple[str, type[PoolFacts], Callable[[Path], None]]] = (
        ("items", ItemPoolFacts, use_items), ("texts", TextPoolFacts, use_texts),
    )  # fmt: skip
    for name, kind, use in kinds:
        found += _pool_targets(folder / name, name, kind, use)
    return found


def _pool_targets(path: Path, name: str, kind: type[PoolFacts], use: Callable[[Path], None]) -> list[Target]:
    facts = read_facts(path, "text" if name == "texts" else name, kind, "")
    arrays = {array: np.load(path / f"{array}.npy") for array in facts.arrays}
    document = (path / POOL_FILE).read_bytes()

    def use_facts(data: bytes) -> None:
        (path / POOL_FILE).write_bytes(data)
        use(path)

    def use_array(data: bytes) -> None:
        """Beginning with the array's name: the others are whole."""
        array, _, content = data.partition(b"\0")
        file = path / f"{array.decode()}.npy"
        whole = file.read_bytes()
        try:
            own = facts_of(content, file)
            try:
                read = np.load(BytesIO(content), allow_pickle=False)
                shape, dtype = read.shape, read.dtype.str
            except Exception:
                shape, dtype = arrays[file.stem].shape, arrays[file.stem].dtype.str
            described = replace(facts.arrays[file.stem], sha256=own.sha256, bytes=own.bytes, shape=shape, dtype=dtype)
            write_facts(path, replace(facts, arrays={**facts.arrays, file.stem: described}))
            use(path)
        finally:
            file.write_bytes(whole)
            (path / POOL_FILE).write_bytes(document)

    def inputs(number: int, seed: int) -> Iterator[bytes]:
        chance = random.Random(seed)
        for _ in range(number):
            array, content = chance.choice(list(arrays)), BytesIO()
            np.save(content, changed(arrays[array], chance))
            data = content.getvalue()
            if chance.random() < 0.3:
                data = next(mutated([data], 1, seed=chance.randrange(2**30)))
            yield array.encode() + b"\0" + data

    return [
        Target(f"pool of {name}: pool.json, bytes", use_facts, raw_bytes(document)),
        Target(f"pool of {name}: pool.json, resealed", use_facts, documents(document, kind)),
        Target(f"pool of {name}: arrays, resealed", use_array, inputs),
    ]


def other_targets(folder: Path, trie: ItemTrie, tokenizer: bytes) -> list[Target]:
    """Text bundles, tokenizers, calibration ranges, groups and teacher trees."""
    folder.mkdir(parents=True)
    text = TextManifest(
        schema_version=2, specbeam_version="0", precision="fp32", opset=23, target=MODEL,
        prompt=TextPrompt(prefix="", suffix="", special=True), end_tokens=(3,), vocabulary=64, tree_path=13,
        tokenizer_sha256="abc", files={"tokenizer/tokenizer.json": FileFacts(sha256="", bytes=1)},
    )  # fmt: skip
    ranges = {
        "source_sha256": "ab", "estimator": "minmax", "percentile": None, "histories": 3, "calls": 9, "seed": 0,
        "tensors": {"a": [-1.0, 2.0]}, "channels": {"a": [1.0, 2.0]},
    }  # fmt: skip

    def use_text(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        TextBundle.open(folder)
        describe(folder)

    def use_tokenizer(data: bytes) -> None:
        file = folder / "tokenizer.json"
        file.write_bytes(data)
        fingerprint(file)
        load(file).encode("hello there")

    def use_file(read: Callable[[Path], object]) -> Callable[[bytes], None]:
        def use(data: bytes) -> None:
            (folder / "file").write_bytes(data)
            read(folder / "file")

        return use

    seeds = (
        ("text manifest", sealed(text), TextManifest, use_text),
        ("ranges.json", json.dumps(ranges).encode(), None, use_file(lambda path: load_ranges(path, "ab"))),
        ("groups.json", b'{"u1": "a", "u2": "b"}', None, use_file(read_groups)),
        ("tokenizer.json", tokenizer, None, use_tokenizer),
    )
    found = []
    for name, seed_file, kind, use in seeds:
        found += [
            Target(f"{name}, bytes", use, raw_bytes(seed_file)),
            Target(f"{name}, {'resealed' if kind else 'values'}", use, documents(seed_file, kind)),
        ]
    return [*found, _trees(folder / "trees", trie)]


def _trees(folder: Path, trie: ItemTrie) -> Target:
    """A part of teacher trees whose seal fits; what is taken for whole can be read."""
    folder.mkdir()
    store = TreeStore(folder, trie, TeacherSettings(fingerprint="f", width=2, samples=4, part=4))
    node = np.tile(np.array([0, 1, 2], np.int32), 4)
    children = int(trie.child_count[node].sum())
    leaves = np.full((4, 2), len(trie.parent) - 1, np.int32)
    store.write(0, Trees(np.full(4, 3), node, np.full(children, -1.0, np.float16), leaves))
    arrays: Mapping[str, np.ndarray] = {
        "count": np.full(4, 3, np.int32), "node": node, "logprob": np.full(children, -1.0, np.float16),
        "leaves": leaves,
    }  # fmt: skip

    def use(data: bytes) -> None:
        (folder / "part-00000.safetensors").write_bytes(data)
        own = TreeStore(folder, trie, store.settings)
        if not own.missing():
            own.read([0, 3])

    seal = lambda own: {SEAL: f"{store._of} {_digest(own)}"}  # noqa: E731
    return Target("teacher trees, resealed", use, lambda n, s: changed_tensors(dict(arrays), n, s, seal))
