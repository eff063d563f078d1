"""Loaders of bundles and of what lies in them, as targets of `fuzz.py`: small artifacts, changed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from benchmarks.reliability.fuzz_mutations import Arrays, Target, changed_tensors, documents, facts_of, raw_bytes
from fuzzing import mutated_json
from specbeam.catalog.arrays import map_arrays
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptSpec
from specbeam.catalog.trie import ItemTrie
from specbeam.catalog.trie_file import TYPES, check_agreement, save_trie
from specbeam.engines.bundle.facts import ENGINE_SCHEMA, EngineFacts, FileFacts, LatencyPoint, ModelFacts, RoleFacts
from specbeam.engines.bundle.inspect import describe
from specbeam.engines.bundle.items import CATALOG_FILE, TRIE_FILE, Bundle, Manifest
from specbeam.engines.bundle.model import MANIFEST
from specbeam.engines.bundle.sealed import sealed
from specbeam.engines.scripted import ScriptedEngine
from specbeam.pools import TextDrafting
from specbeam.runtime import DraftShape, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.acceptance import GRID, AcceptanceCounts, DepthCounts, LevelCounts, WidthCounts
from specbeam.runtime.planning.costs import SIZES
from specbeam.runtime.planning.kept import KEPT_SCHEMA, Kept, KeptPaces, KeptTrials, Memory, Subject
from specbeam.runtime.planning.planner import BEFORE, Planner
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.planning.tuning_file import TUNING_SCHEMA, CallFit, Tuning, planner_for

ENGINE = "onnxruntime-cpu-fp32"


MODEL = ModelFacts(
    architecture="LlamaForCausalLM", parameters=9, layers=1, kv_heads=1, head_dim=4, vocabulary=64, context=64
)


DRAFTING = TextDrafting(depth=4, query=2, draft_tokens=20)


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
        files = {name: facts_of((folder / name).read_bytes(), folder / name) for name in (CATALOG_FILE, TRIE_FILE)}
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
        subject = Subject(
            bundle="b", engine=ENGINE, facts="f", mode="strict", scoring="full", drafter="model", pool=None,
            reuse=True, threads=1, machine="m",
        )  # fmt: skip
        self.kept = Kept(
            schema_version=KEPT_SCHEMA, subject=subject, acceptance=self.tuning.acceptance,
            paces=KeptPaces((1.5,) * SIZES, (0.5,) * SIZES, 2.0), standing=0.2,
            trials=(KeptTrials(k=10, left=9, wait=32),),
        )  # fmt: skip

    def search(self, catalog: Catalog, trie: ItemTrie) -> None:
        """A search by scripted engines over what was accepted; its lists are such as can be."""
        target, draft = (ScriptedEngine(len(trie.vocabulary), disagreement=d) for d in (0.0, 0.4))
        loaded = Loaded(catalog, trie, Bundle(self.folder, self.manifest).prompts(trie), target, draft)
        recommender = Recommender(loaded, planning=FixedPlanning(DraftShape(4, 2)), batching=2)
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
            files = {**self.manifest.files, name: facts_of(data, self.folder / name)}
            other = CATALOG_FILE if name == TRIE_FILE else TRIE_FILE
            assert (self.folder / other).stat().st_size == files[other].bytes
            self.search(*Bundle(self.folder, replace(self.manifest, files=files)).items())

        return use

    def catalog_lines(self, data: bytes) -> None:
        """The catalog as bundles had it before it was columns."""
        (self.folder / "items.jsonl").write_bytes(data)
        catalog = Catalog.open(self.folder / "items.jsonl")
        check_agreement(catalog, self.trie, None)
        self.search(catalog, self.trie)

    def planned(self, engine: bytes, tuning: bytes) -> None:
        """engine.json and a tuning, and plans by both."""
        folder = self.folder / "engines" / ENGINE
        (folder / "engine.json").write_bytes(engine)
        (folder / "tuning-strict-full.json").write_bytes(tuning)
        bundle = Bundle(self.folder, self.manifest)
        self.planner().rationale(8, 40, 10)
        bundle.rebuild(ENGINE, bundle.engine_facts(ENGINE))

    def planner(self) -> Planner:
        bundle = Bundle(self.folder, self.manifest)
        return planner_for(bundle, ENGINE, self.trie, "strict", "full", drafter="model", pool=None, threads=1)

    def learned(self, kept: bytes) -> None:
        """What an earlier process learned, a plan by it, and what is learned in turn; a file that is left aside is
        replaced."""
        (self.folder / "engines" / ENGINE / "engine.json").write_bytes(sealed(self.engine))
        (self.folder / "engines" / ENGINE / "tuning-strict-full.json").unlink(missing_ok=True)
        planner, path = self.planner(), self.folder / "cache" / self.kept.subject.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(kept)
        memory = Memory(planner, self.kept.subject, path.parent)
        refused = memory.fault
        planner.rationale(8, 40, 10)
        for _ in range(BEFORE + 1):
            planner.begin(np.full(2, 10), 40)
        memory.keep()
        assert Memory(self.planner(), self.kept.subject, path.parent).fault == ""
        if refused:
            raise SpecBeamError(refused)


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
        ("learned.json", sealed(made.kept), Kept, made.learned),
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
    columns: Arrays = map_arrays(folder / CATALOG_FILE)
    lines = b"".join(map(_line, made.catalog.item_ids, made.catalog.identifiers, made.catalog.titles))
    of_items = [
        Target("items, bytes, resealed", use_items, raw_bytes(items_bytes)),
        Target("items, arrays, resealed", use_items, lambda n, s: changed_tensors(columns, n, s, lambda own: {})),
        Target("items.jsonl, bytes", made.catalog_lines, raw_bytes(lines)),
        Target("items.jsonl, lines", made.catalog_lines, lambda n, s: mutated_json([lines], n, seed=s, lines=True)),
    ]
    whole = {name: (folder / name).read_bytes() for name in (MANIFEST, CATALOG_FILE, TRIE_FILE)}
    return [_restored(folder, whole, target) for target in (*found, *of_trie, *of_items)]


def _line(item: str, identifier: tuple[str, ...], title: str | None) -> bytes:
    return msgspec.json.encode({"item": item, "identifier": identifier, "title": title}) + b"\n"


def _restored(folder: Path, whole: Mapping[str, bytes], target: Target) -> Target:
    """The same target, files whole again before its first input."""

    def inputs(number: int, seed: int) -> Iterator[bytes]:
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        yield from target.inputs(number, seed)

    return Target(target.name, target.use, inputs)
