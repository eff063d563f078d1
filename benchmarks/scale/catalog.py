"""A catalog of ten million items: what its part of an export costs, opening it, a round, and a long deny-list.

    python -m benchmarks.scale.catalog --work FOLDER [--items 10000000]

Every step runs in a process of its own, so that its peak is its own. The two catalogs' rounds take turns.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from benchmarks.scale.made_catalog import CODES, LEVELS, Vocabulary, seal, write
from specbeam.catalog.files import sha256
from specbeam.catalog.identifiers import compile_identifiers
from specbeam.catalog.items import Catalog
from specbeam.catalog.texts import TextColumn
from specbeam.catalog.trie_file import check_agreement, save_trie
from specbeam.engines.base import Engine, Float32, ForwardInputs
from specbeam.engines.bundle.items import CATALOG_FILE, TRIE_FILE, Bundle
from specbeam.engines.cache import KVCache
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import DraftShape, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.acceptance import Acceptance
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.runs.item_lists import ItemList, filter_of

SMALL = 10_240
FEW = 10  # codes of the first level in the small catalog: beams then have as many children as in the large one
DENIED = 1_000_000
BATCH, TOP_K = 8, 10


def memory() -> dict[str, float]:
    """Of this process, in GB: anonymous and resident now, and the most that was resident."""
    names = {"RssAnon": "anonymous", "VmRSS": "resident", "VmHWM": "peak"}
    with open("/proc/self/status") as file:
        said = dict(line.split(":", 1) for line in file)
    return {name: int(said[key].split()[0]) * 1024 / 1e9 for key, name in names.items()}


class Steps:
    """Seconds of a process's steps, and its memory after each."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        wall, own = perf_counter(), process_time()
        yield
        self.rows.append({"step": name, "seconds": perf_counter() - wall, "cpu": process_time() - own, **memory()})


def export(source: Path, items: Path | None, folder: Path) -> list[dict[str, object]]:
    """The catalog part of an export, as `export_bundle` does it."""
    steps = Steps()
    with steps.step("imports"):
        (folder / "catalog").mkdir(parents=True)
    with steps.step(f"read {source.name}"):
        catalog = Catalog.load(source, items)
    with steps.step("identifiers and trie"):
        identifiers = compile_identifiers(Vocabulary(), catalog)
    with steps.step("catalog written"):
        catalog.save(folder / CATALOG_FILE)
    with steps.step("consistency"):
        check_agreement(catalog, identifiers.trie, None)
    with steps.step("trie written"):
        save_trie(identifiers.trie, folder / TRIE_FILE)
    with steps.step("hashes, manifest"):
        seal(folder, identifiers.trie)
    return steps.rows


class SameWork(Engine):
    """A scripted engine that computes as many columns for every catalog, and hands over the catalog's."""

    def __init__(self, columns: int) -> None:
        super().__init__(columns=columns)
        self._inner = ScriptedEngine(LEVELS * CODES)

    def new_cache(self, batch: int) -> KVCache:
        return self._inner.new_cache(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        return self._inner.forward(inputs, cache)[..., : self.columns]


def opened(folder: Path) -> tuple[Bundle, Catalog, Recommender]:
    """A bundle's catalog served by an engine without a model."""
    bundle = Bundle.open(folder)
    catalog, trie = bundle.items()
    loaded = Loaded(catalog, trie, bundle.prompts(trie), SameWork(len(trie.vocabulary)))
    return bundle, catalog, Recommender(loaded, planning=FixedPlanning(DraftShape(10, 2)), batching=BATCH)


def opening(folder: Path) -> list[dict[str, object]]:
    """Opening, what a planner counts, and a first request."""
    steps = Steps()
    with steps.step("imports"):
        pass
    with steps.step("opened"):
        _, catalog, recommender = opened(folder)
    with steps.step("planner's counts"):
        Acceptance(recommender.trie)
    with steps.step("first batch"):
        recommender.recommend(_histories(catalog, BATCH, 0), TOP_K)
    return steps.rows


def _histories(catalog: Catalog, count: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[catalog.item_ids[i] for i in rng.integers(0, len(catalog.item_ids), 12).tolist()] for _ in range(count)]


def rounds(of_large: Path, of_small: Path, turns: int) -> list[dict[str, object]]:
    """Batches of both catalogs in turns: processor milliseconds each, plain and with exclusions.

    First as they were opened, when a large one's pages are not yet in the process, then once all of them were read.
    """
    sides = {"large": opened(of_large)[1:], "small": opened(of_small)[1:]}
    rows: list[dict[str, object]] = []
    for read in (False, True):
        for catalog, recommender in sides.values() if read else ():
            arrays = [*vars(recommender.trie).values(), catalog.position.hashes, catalog.position.places]
            arrays += [catalog.identifiers.table, *_buffers(catalog.item_ids), *_buffers(catalog.titles.texts)]
            sum(int(array.sum()) for array in arrays if isinstance(array, np.ndarray))
        for exclude in (False, True):
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for turn in range(turns + 5):
                for name, (catalog, recommender) in sides.items():
                    histories = _histories(catalog, BATCH, turn + 1000 * exclude)
                    taken[name].append(_batch(recommender, histories, exclude=exclude))
            for part, what in enumerate(("rounds", "whole batch")):
                large, small = ([each[part] for each in taken[name][5:]] for name in sides)
                name = f"{what}{' without its history' * exclude}{', all pages read' * read}"
                found = {"large, ms": 1000 * median(large), "small, ms": 1000 * median(small)}
                ratio = median(a / b for a, b in zip(large, small, strict=True))
                rows.append({"step": name, **found, "ratio": ratio})
    return rows


def _batch(recommender: Recommender, histories: list[list[str]], *, exclude: bool) -> tuple[float, float]:
    """Processor seconds of a batch's rounds, and of all of it: histories to lists."""
    start = process_time()
    requests = [recommender.encode(history, exclude_history=exclude) for history in histories]
    flight = recommender.flight(requests, TOP_K)
    began = process_time()
    while flight.running:
        flight.round()
    ended = process_time()
    flight.end()
    flight.answers(flight.landed)
    return ended - began, process_time() - start


def _buffers(column: TextColumn) -> tuple[np.ndarray, np.ndarray]:
    return column.data, column.starts


def denied(folder: Path, work: Path) -> list[dict[str, object]]:
    """A file of a million ids: first use, then requests under it."""
    steps, (_, catalog, recommender) = Steps(), opened(folder)
    path = work / "denied.txt"
    rng = np.random.default_rng(1)
    places = rng.choice(len(catalog.item_ids), min(DENIED, len(catalog.item_ids) // 2), replace=False)
    path.write_text("\n".join(catalog.item_ids[place] for place in places.tolist()))
    with steps.step("list read and known"):
        wanted = filter_of(None, ItemList.read(path), catalog, warn=print)
    with steps.step("first use"):
        recommender.encoder.filters.compile(wanted)
    histories = _histories(catalog, 200, 3)
    filters = recommender.encoder.filters

    def each(work: Callable[[list[str]], object]) -> float:
        taken = []
        for history in histories:
            start = process_time()
            work(history)
            taken.append(process_time() - start)
        return 1000 * median(taken)

    again = each(lambda history: filters.compile(wanted))
    excluded = [catalog.position.find(history) for history in histories]
    base, left = filters.compile(wanted), iter(excluded)
    without = each(lambda history: filters.without(base, next(left)))
    with steps.step("a batch under it"):
        recommender.recommend(histories[:BATCH], TOP_K, item_filter=wanted)
    return [*steps.rows, {"step": "a later request's part", "ms": again, "with exclusions, ms": without}]


STEPS: dict[str, Callable[..., list[dict[str, object]]]] = {
    "export": export,
    "opening": opening,
    "rounds": rounds,
    "denied": denied,
}


def apart(name: str, *values: object) -> None:
    """One step in a process of its own; prints what it found as a table."""
    said = [None if value is None else str(value) for value in values]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale.catalog", "--step", json.dumps([name, *said])],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{name} {' '.join(Path(each).name for each in said if each)}\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        cells = (row.get(key, "") for key in columns)
        print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")
    sys.stdout.flush()


def _one(name: str, *said: str | None) -> list[dict[str, object]]:
    values: list[object] = [None if each is None else int(each) if each.isdecimal() else Path(each) for each in said]
    return STEPS[name](*values)


def main() -> None:
    options = _arguments()
    if options.step:
        print(json.dumps(_one(*json.loads(options.step))))
        return
    work, large, small = options.work, options.work / f"of-{options.items}", options.work / f"of-{SMALL}"
    for folder, items, first in ((large, options.items, CODES), (small, SMALL, FEW)):
        if not folder.is_dir():
            write(folder, items, first)
    for folder in (small, large):
        for source, items in ((folder / "items.parquet", None), (folder / "index.json", folder / "items.json")):
            bundle = folder / f"bundle-{source.suffix[1:]}"
            if not bundle.is_dir():
                apart("export", source, items, bundle)
    same = {sha256(large / f"bundle-{kind}" / CATALOG_FILE) for kind in ("parquet", "json")}
    print(f"\nboth sources give {'the same' if len(same) == 1 else 'different'} catalogs")
    bundle = large / "bundle-json"
    for _ in range(3):
        apart("opening", bundle)
    apart("rounds", bundle, small / "bundle-json", options.turns)
    apart("denied", bundle, work)


def _arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("catalog-work"), help="folder for what is made; kept")
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--step", help="one step alone, as the others are run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
