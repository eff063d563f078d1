"""What loaders of artifacts are fuzzed with: small artifacts, changed raw or so that their checksums fit again."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from safetensors.numpy import save

from fuzzing import mutated, mutated_json
from specbeam.align.teaching.trees import SEAL, TeacherSettings, Trees, TreeStore, _digest
from specbeam.calib.ranges import load_ranges
from specbeam.catalog.files import sha256
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptSpec
from specbeam.catalog.trie import ItemTrie
from specbeam.catalog.trie_file import TYPES, save_trie
from specbeam.engines.bundle.facts import ENGINE_SCHEMA, EngineFacts, FileFacts, LatencyPoint, ModelFacts, RoleFacts
from specbeam.engines.bundle.inspect import describe
from specbeam.engines.bundle.items import CATALOG_FILE, TRIE_FILE, Bundle, Manifest
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import Sealed, sealed
from specbeam.engines.bundle.texts import TextBundle, TextManifest, TextPrompt
from specbeam.engines.scripted import ScriptedEngine
from specbeam.pools import TextDrafting, propose
from specbeam.pools.files import POOL_FILE, PoolFacts, read_facts, write_facts
from specbeam.pools.groups.file import read_groups
from specbeam.pools.items.build import build_item_pool
from specbeam.pools.items.pool import ItemPool, ItemPoolFacts
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.pool import TextPool, TextPoolFacts
from specbeam.pools.texts.read import Text
from specbeam.pools.texts.tokenizer import fingerprint, load
from specbeam.runtime import DraftShape, Recommender
from specbeam.runtime.drafting.retrieval import CatalogPool
from specbeam.runtime.planning.acceptance import GRID, AcceptanceCounts, DepthCounts, LevelCounts, WidthCounts
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.planning.tuning_file import TUNING_SCHEMA, CallFit, Tuning, planner_for

ENGINE = "onnxruntime-cpu-fp32"
MODEL = ModelFacts(
    architecture="LlamaForCausalLM", parameters=9, layers=1, kv_heads=1, head_dim=4, vocabulary=64, context=64
)
EXTREMES = (0, 1, -1, 2, 127, -(2**31), 2**31 - 1, 2**31, 2**62, -(2**63), 2**63 - 1)
DTYPES = ("<i4", "<i8", "<u4", "<u8", "<u1", "<i2", "<f4", "<f8", "<f2", ">i4", "|b1")
DRAFTING = TextDrafting(depth=4, query=2, draft_tokens=20)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """A loader, and its inputs: so many, from a seed."""

    name: str
    use: Callable[[bytes], object]
    inputs: Callable[[int, int], Iterator[bytes]]


def changed(array: np.ndarray, chance: random.Random) -> np.ndarray:
    """An array with entries of other values, in another order, of another length, shape or type."""
    array, kind = array.copy(), chance.randrange(10)
    with np.errstate(all="ignore"):
        if kind < 5 and array.size:
            for _ in range(chance.choice((1, 1, 2, 8))):
                at = chance.randrange(array.size)
                value = chance.choice((*EXTREMES, array.size, chance.choice(array.ravel().tolist()), at))
                if array.dtype.kind == "f":
                    array.flat[at] = chance.choice((np.nan, np.inf, -1.0, 1e38, float(value)))
                else:
                    array.flat[at] = np.array(int(value) % 2**64, np.uint64).astype(array.dtype)
        elif kind == 5 and array.size > 1:
            a, b = (chance.randrange(array.size) for _ in range(2))
            array.flat[[a, b]] = array.flat[[b, a]]
        elif kind == 6:
            array = array[: chance.randrange(len(array) + 1)]
        elif kind == 7:
            array = np.concatenate([array, array[: chance.randrange(len(array) + 1)]])
        elif kind == 8:
            array = array.astype(chance.choice(DTYPES))
        else:
            array = array.reshape(1, -1) if chance.random() < 0.3 else array[::-1]
    return np.ascontiguousarray(array)


def changed_tensors(arrays: Arrays, number: int, seed: int, metadata: Callable[[Arrays], dict[str, str]]) -> Any:
    """Safetensors files of changed arrays; now and then one is missing or has another's name."""
    chance = random.Random(seed)
    for _ in range(number):
        own = dict(arrays)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            name = chance.choice(list(own))
            own[name] = changed(own[name], chance) if own[name].ndim else own[name]
        if chance.random() < 0.05:
            own[chance.choice(("x", *arrays))] = own.pop(chance.choice(list(own)))
        own = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in own.items()}
        yield save(own, metadata(own))


def resealed(data: bytes, kind: type[Sealed]) -> bytes:
    """JSON with the checksum that fits its content, where it is such a structure at all."""
    try:
        return sealed(msgspec.json.decode(data, type=kind))
    except Exception:
        return data


def documents(seed_file: bytes, kind: type[Sealed] | None) -> Callable[[int, int], Iterator[bytes]]:
    def inputs(number: int, seed: int) -> Iterator[bytes]:
        for data in mutated_json([seed_file], number, seed=seed):
            yield data if kind is None else resealed(data, kind)

    return inputs


def raw_bytes(seed_file: bytes) -> Callable[[int, int], Iterator[bytes]]:
    return lambda number, seed: mutated([seed_file], number, seed=seed)


def _facts(data: bytes, path: Path) -> FileFacts:
    path.write_bytes(data)
    return FileFacts(sha256=sha256(path), bytes=len(data))


class Artifacts:
    """Small artifacts of every kind in a folder, none of which needs a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        rows = 10 + 8 * np.arange(3) + rng.integers(0, 6, (40, 3))
        strings = tuple(tuple(f"<{token}>" for token in row) for row in rows.tolist())
        self.catalog, self.trie = Catalog(tuple(f"i{i}" for i in range(40)), strings, ("T",) * 40), ItemTrie.build(rows)
        (folder / "catalog").mkdir(parents=True)
        self.catalog.save(folder / CATALOG_FILE)
        save_trie(self.trie, folder / TRIE_FILE)
        files = {name: _facts((folder / name).read_bytes(), folder / name) for name in (CATALOG_FILE, TRIE_FILE)}
        prompt = PromptSpec(
            template="{history}", separator="", prefix_ids=(1,), separator_ids=(), suffix_ids=(2,), history_length=9
        )
        self.manifest = Manifest(
            schema_version=2, specbeam_version="0", precision="fp32", scoring="full", opset=23, target=MODEL,
            draft=MODEL, prompt=prompt, items=40, identifiers=self.trie.identifiers, identifier_length=3,
            end_token=None, catalog_tokens=len(self.trie.vocabulary), max_prompt_tokens=60, max_top_k=20, files=files,
        )  # fmt: skip
        (folder / MANIFEST).write_bytes(sealed(self.manifest))
        self._engine()

    def _engine(self) -> None:
        latency = tuple(
            LatencyPoint(batch=b, past=p, new=n, milliseconds=b + n / 9.0)
            for b in (1, 8)
            for p in (0, 80)
            for n in (1, 9)
        )
        self.bundle = bundle = Bundle.open(self.folder)
        roles = {
            role: RoleFacts(
                precision="fp32", cache="fp32", source_sha256=bundle.graph_sha256(role), max_difference=0.0,
                latency=latency,
            )
            for role in ("target", "draft")
        }  # fmt: skip
        self.engine = EngineFacts(
            schema_version=ENGINE_SCHEMA, backend="onnxruntime", device="cpu", precision="fp32", threads=1,
            versions={"onnxruntime": "1"}, roles=roles, files={"target/model.onnx": FileFacts(sha256="", bytes=0)},
        )  # fmt: skip
        (self.folder / "engines" / ENGINE).mkdir(parents=True)
        (self.folder / "engines" / ENGINE / "engine.json").write_bytes(sealed(self.engine))
        some = (24,) * len(GRID)
        level = LevelCounts(start=0, level=1, trials=some, complete=some, needed=some, found=some)
        depth = DepthCounts(requests=24, idle=2, needed=24, children=24)
        self.tuning = Tuning(
            schema_version=TUNING_SCHEMA, graphs={role: facts.source_sha256 for role, facts in roles.items()},
            mode="strict", scoring="full", drafter="model", pool=None, users=24, threads=1,
            fits={"target": CallFit(), "draft": CallFit()},
            acceptance=AcceptanceCounts(grid=GRID, widths=(WidthCounts(k=10, depths=(depth,) * 3, levels=(level,)),)),
        )  # fmt: skip

    def search(self, catalog: Catalog, trie: ItemTrie) -> None:
        """A search by scripted engines over what was accepted; its lists are such as can be."""
        target, draft = (ScriptedEngine(len(trie.vocabulary), disagreement=d) for d in (0.0, 0.4))
        recommender = Recommender(
            catalog, trie, Bundle(self.folder, self.manifest).prompts(trie), target, draft,
            planning=FixedPlanning(DraftShape(4, 2)), batch_size=2,
        )  # fmt: skip
        for result in recommender.recommend([[catalog.item_ids[0]], list(catalog.item_ids[-9:])], 10):
            items, scores = [entry.item for entry in result.items], [entry.score for entry in result.items]
            assert len(set(items)) == len(items) == min(10, len(catalog.item_ids)), "a short list"
            assert scores == sorted(scores, reverse=True), "a list that is not sorted"

    def manifest_json(self, data: bytes) -> None:
        """manifest.json by itself, and with all that it says of the catalog."""
        (self.folder / MANIFEST).write_bytes(data)
        bundle = Bundle.open(self.folder)
        for file in bundle.manifest.files:
            bundle.file(file)
        describe(self.folder)
        bundle.prompts(bundle.items()[1])

    def catalog_file(self, name: str) -> Callable[[bytes], None]:
        """A file of the catalog whose hash fits."""

        def use(data: bytes) -> None:
            files = {**self.manifest.files, name: _facts(data, self.folder / name)}
            other = CATALOG_FILE if name == TRIE_FILE else TRIE_FILE
            assert (self.folder / other).stat().st_size == files[other].bytes
            self.search(*Bundle(self.folder, replace(self.manifest, files=files)).items())

        return use

    def planned(self, engine: bytes, tuning: bytes) -> None:
        """engine.json and a tuning, and plans by both."""
        folder = self.folder / "engines" / ENGINE
        (folder / "engine.json").write_bytes(engine)
        (folder / "tuning-strict-full.json").write_bytes(tuning)
        bundle = Bundle(self.folder, self.manifest)
        planner = planner_for(bundle, ENGINE, self.trie, "strict", "full", drafter="model", pool=None, threads=1)
        planner.rationale(8, 40, 10)
        bundle.rebuild(ENGINE, bundle.engine_facts(ENGINE))


def artifact_targets(folder: Path) -> list[Target]:
    """All loaders of bundles, engines and tunings."""
    made = Artifacts(folder)
    manifest, engine, tuning = sealed(made.manifest), sealed(made.engine), sealed(made.tuning)
    trie_bytes, items_bytes = (folder / TRIE_FILE).read_bytes(), (folder / CATALOG_FILE).read_bytes()
    arrays: Arrays = {name: getattr(made.trie, name) for name in TYPES}
    pairs = (
        ("manifest.json", manifest, Manifest, made.manifest_json),
        ("engine.json", engine, EngineFacts, lambda data: made.planned(data, tuning)),
        ("tuning.json", tuning, Tuning, lambda data: made.planned(engine, data)),
    )
    found = []
    for name, seed_file, kind, use in pairs:
        found += [
            Target(f"{name}, bytes", use, raw_bytes(seed_file)),
            Target(f"{name}, resealed", use, documents(seed_file, kind)),
        ]
    use_trie, use_items = made.catalog_file(TRIE_FILE), made.catalog_file(CATALOG_FILE)
    of_trie = [
        Target("trie, bytes, resealed", use_trie, raw_bytes(trie_bytes)),
        Target("trie, arrays, resealed", use_trie, lambda n, s: changed_tensors(arrays, n, s, lambda own: {})),
    ]
    of_items = [
        Target("items.jsonl, bytes, resealed", use_items, raw_bytes(items_bytes)),
        Target("items.jsonl, lines, resealed", use_items,
               lambda n, s: mutated_json([items_bytes], n, seed=s, lines=True)),
    ]  # fmt: skip
    whole = {name: (folder / name).read_bytes() for name in (MANIFEST, CATALOG_FILE, TRIE_FILE)}
    return [_restored(folder, whole, target) for target in (*found, *of_trie, *of_items)]


def _restored(folder: Path, whole: Mapping[str, bytes], target: Target) -> Target:
    """The same target, files whole again before its first input."""

    def inputs(number: int, seed: int) -> Iterator[bytes]:
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        yield from target.inputs(number, seed)

    return Target(target.name, target.use, inputs)


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
            own = _facts(content, file)
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
