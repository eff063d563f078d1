"""What the benchmarks and the tests share: what compares with `generate` as the truth, real users, turns, tables."""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
from tqdm import tqdm

from benchmarks.public import as_ranked, real_users, rows_of, shared_data  # noqa: F401 (what needs no torch)
from specbeam.catalog.trie import ItemTrie
from specbeam.evaluate.figures import ranking_fault  # noqa: F401 (what compares with the truth)
from specbeam.evaluate.generate import Ranked, TrieGenerate  # noqa: F401 (the truth)

WARM_UP = 3
PAUSE = 0.01  # seconds before each turn: the threads of the contestant before stop spinning meanwhile
Contestant = Callable[[list[list[str]]], object]


def leaf_identifiers(trie: ItemTrie, identifiers: Sequence[tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """The identifier's strings of every leaf."""
    leaves = np.flatnonzero(trie.child_count == 0)
    first_items = trie.item[trie.item_offset[leaves]]
    return {leaf: identifiers[item] for leaf, item in zip(leaves.tolist(), first_items.tolist(), strict=True)}


def dump(path: str | None, result: object) -> None:
    """Write a benchmark's result as JSON, if a path is given."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")


def built_bundle(data: Path, pair: Path, bundle: Path | None, history_length: int = 20) -> Path:
    """A pair of checkpoints exported and built for this machine: at `bundle` if that is there, else made (there)."""
    from specbeam.engines.build import build_engine
    from specbeam.export import export_bundle

    bundle = bundle or Path(tempfile.mkdtemp(prefix="specbeam-bench-")) / data.name
    if not bundle.exists():
        export_bundle(
            pair / "target", pair / "draft", data / "index.json", data / "items.json", bundle,
            history_length=history_length,
        )  # fmt: skip
        build_engine(bundle)
    return bundle


def arguments(
    description: str | None,
    users: int | None,
    more: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
    *,
    history_length: int = 20,
    bundled: Callable[[argparse.Namespace], bool] = lambda options: True,
) -> argparse.Namespace:
    """The options that every benchmark has, and `more`; exits with the reason where the data is absent.

    The result's `data` is the dataset's folder, `pair` that of the checkpoints, `bundle` what was made of them; all
    three as they were given where, by these options, no bundle is `bundled`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default="beauty", choices=["beauty", "games"])
    parser.add_argument(
        "--pair",
        type=Path,
        help="folder with target/ and draft/ (default: beauty's; see alignment.train_pair)",
    )
    parser.add_argument("--bundle", type=Path, help="exported and built bundle of the pair; made there if absent")
    parser.add_argument("--users", type=int, default=users, help="how many test users (default: %(default)s)")
    parser.add_argument("--top-k", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--threads", type=int, help="of each engine (default: all processors)")
    parser.add_argument("--engine", help="of the bundle (default: the only one built)")
    parser.add_argument("--output", help="write the result as JSON")
    more(parser)
    options = parser.parse_args()
    if not bundled(options):
        return options
    shared = shared_data()
    if shared is None:
        parser.exit(2, "The data/ and models/ folders are absent: name the folder that holds them in SPECBEAM_DATA.\n")
    options.pair = options.pair or shared / "models" / options.data
    if not (options.pair / "target").is_dir():
        parser.exit(
            2,
            f"{options.pair} has no target/. Train one (alignment.train_pair), give its folder as --pair.\n",
        )
    options.data = shared / "data" / options.data
    options.bundle = built_bundle(options.data, options.pair, options.bundle, history_length)
    return options


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(f"{x:.2f}" if isinstance(x, float) else str(x) for x in row) + " |", flush=True)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes."""
    sleep(PAUSE)
    start = perf_counter()
    work()
    return 1000 * (perf_counter() - start)


def turns(contestants: dict[str, Contestant], groups: list[list[list[str]]], name: str) -> dict[str, float]:
    """Median milliseconds a user of each contestant over the groups of users, taking turns."""
    times: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    warm_up = groups[:WARM_UP]
    for i, group in enumerate(tqdm([*warm_up, *groups], desc=name, disable=None, leave=False)):
        for contestant, serve in contestants.items():
            elapsed = timed(lambda serve=serve, group=group: serve(group)) / len(group)
            if i >= len(warm_up):
                times[contestant].append(elapsed)
    return {contestant: median(measured) for contestant, measured in times.items()}


def shape(text: str) -> tuple[int, int]:
    """ "40x3" as (40, 3)."""
    width, length = text.split("x")
    return int(width), int(length)
