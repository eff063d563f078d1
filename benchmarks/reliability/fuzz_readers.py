"""Readers of users' files as targets of `fuzz.py`: each gives results, rejects or one of our errors, in time.

Seeds are small valid files that this module makes.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.reliability.fuzz_mutations import Target as FuzzTarget
from fuzzing import alternating, mutated, mutated_json
from specbeam.catalog import Catalog, read_histories
from specbeam.catalog.histories.dataset import Dataset
from specbeam.pools.groups.file import read_groups
from specbeam.pools.groups.items import read_items
from specbeam.pools.texts.read import read_texts
from specbeam.runtime.runs.item_lists import ItemList
from specbeam.text.prompts import read_prompts

JSONL = (
    b'{"user": "u1", "items": ["11", 4], "k": 3}\n{"user": 2, "items": [5], "allow": ["6"], "deny": [7, "8"]}\n'
    b'{"user": "u3", "items": ["9"], "exclude_history": true, "labels": ["1"]}\n'
)
LCREC = b'{"0": [11, 4],\n "u1": ["a", 5],\n "2": [7]}\n'
ATSPEED = b"1 1955 28\n2 3 4 5\nu3 7\n"
MINIONEREC = b'user_id,history_item_title,history_item_id,item_id\nA,"[\'a, b\']","[21, 24]",7\nB,t,"[\'x\', 5]",8\n'
INDEX = b'{"0": ["<a_1>", "<b_2>"],\n "1": ["<a_1>", "<b_1>"], "7": ["<a_2>"]}'
ITEMS = (
    b'{"0": {"title": "Desk lamp", "categories": ["Home", "Light"], "price": 3.5},\n'
    b'"1": {"title": "Mug", "categories": "Home,Kitchen"}, "7": {"description": "title: none"}}'
)
TITLES = b'{"0": "Desk lamp", "1": {"title": null}, "7": {"title": "Mug", "price": NaN}}'
TEXTS = b'{"id": "u1", "text": "Likes games."}\n{"id": 2, "text": "Tea", "finish": "length"}\n'
PROMPTS = b'{"id": "u1", "prompt": "Say: "}\n{"id": 2, "prompt": "x", "group": "3", "max_new_tokens": 5}\n'
GROUPS = b'{"u1": "3", "u2": "0", "u3": "3"}'
LIST = "11\r\n4\n\n\u00e9 x\n".encode()


@dataclass(frozen=True)
class Target:
    """A reader, the file it is given, and what its inputs are made from."""

    file: str
    use: Callable[[Path], object]
    seeds: tuple[bytes, ...]
    structure: str | None = None  # "json" or "lines": half of the inputs are changed as JSON

    def inputs(self, number: int, seed: int) -> Iterator[bytes]:
        """Mutated seeds, half of them in their structure where they have one."""
        if self.structure is None:
            return mutated(self.seeds, number, seed=seed)
        changed = mutated_json(self.seeds, number // 2, seed=seed, lines=self.structure == "lines")
        return alternating(mutated(self.seeds, number - number // 2, seed=seed), changed)


def targets() -> dict[str, Target]:
    """All readers, by name."""
    return {
        "jsonl": Target("h.jsonl", _history, (JSONL,), "lines"),
        "jsonl, piped": Target("h.jsonl", _piped, (JSONL, LCREC, ATSPEED), None),
        "lcrec": Target("h.inter.json", _history, (LCREC,), "json"),
        "atspeed": Target("h.txt", _history, (ATSPEED,)),
        "minionerec": Target("h.csv", _history, (MINIONEREC,)),
        "parquet": Target("h.parquet", _history, _parquet()),
        "index.json": Target("index.json", lambda path: Catalog.load(path, None), (INDEX,), "json"),
        "items.json": Target("items.json", _titles, (ITEMS, TITLES), "json"),
        "items.json, groups": Target("items.json", read_items, (ITEMS,), "json"),
        "dataset": Target("train.jsonl", _dataset, (JSONL,), "lines"),
        "dataset, atspeed": Target("sequential_train.txt", _dataset, (ATSPEED,)),
        "item list": Target("list.txt", ItemList.read, (LIST,)),
        "prompts": Target("p.jsonl", lambda path: list(read_prompts(path)), (PROMPTS,), "lines"),
        "texts": Target("t.jsonl", lambda path: list(read_texts([path])), (TEXTS,), "lines"),
        "groups": Target("groups.json", read_groups, (GROUPS,), "json"),
    }


def reader_targets(folder: Path) -> list[FuzzTarget]:
    """Each reader on files in a folder of its own; those whose library is missing are left out."""
    found = []
    for name, target in targets().items():
        if target.seeds:
            own = folder / name.replace(" ", "")
            own.mkdir(parents=True)
            (own / "index.json").write_bytes(INDEX)
            found.append(FuzzTarget(name, _strictly(target.use, own / target.file), target.inputs))
    return found


def _strictly(use: Callable[[Path], object], path: Path) -> Callable[[bytes], object]:
    """A warning on the screen is a fault as well."""

    def strict(data: bytes) -> object:
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return use(path)

    return strict


def _history(path: Path) -> object:
    kept = list(read_histories([path], keep_read=True))
    for outcome in kept:
        shown = (outcome.source, getattr(outcome, "raw", ""), getattr(outcome, "user", ""))
        msgspec.json.encode(shown)  # as in outputs
    return kept


def _piped(path: Path) -> object:
    return list(read_histories([Path("-")], stdin=io.BufferedReader(io.BytesIO(path.read_bytes()))))


def _titles(path: Path) -> object:
    catalog = Catalog.load(path.with_name("index.json"), path)
    catalog.save(path.with_name("items.safetensors"))
    return catalog


def _dataset(path: Path) -> object:
    return Dataset.open(path.parent)


def _parquet() -> tuple[bytes, ...]:
    """Small files: plain and packed, with and without a dictionary, of several row groups and kinds of columns."""
    try:
        import pyarrow
        from pyarrow.parquet import write_table
    except ImportError:
        return ()
    users, items = [f"user {i}" for i in range(40)], [[str(i), "7"] for i in range(40)]
    numbers = pyarrow.table({"user": range(40), "items": [[i] for i in range(40)], "k": [3] * 40, "allow": items})
    dates = pyarrow.table({"user": pyarrow.array(range(40), pyarrow.timestamp("ns")), "items": items})
    files = []
    for table in (pyarrow.table({"user": users, "items": items}), numbers, dates):
        for packed, dictionary in (("none", False), ("snappy", True), ("zstd", False)):
            file = io.BytesIO()
            write_table(table, file, compression=packed, use_dictionary=dictionary, row_group_size=16)
            files.append(file.getvalue())
    return tuple(files)
