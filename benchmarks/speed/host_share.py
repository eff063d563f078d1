"""The plain loop over its floor: processor time a user beside the same engine's bare calls, and what the host does.

Every batch is first recorded, then served in turns by four: the loop; the calls that it made, `Engine.forward` alone;
of ONNX Runtime on the CPU the runs that these make, on inputs that lie ready; and the loop on an engine that answers
at once with what was recorded: the host's work alone. That one's Python calls are counted as well: their number is
the same on every machine. `--scripted` takes an engine and a catalog that are made up in place of a bundle.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from cProfile import Profile
from dataclasses import dataclass, replace
from functools import partial
from pstats import Stats
from statistics import median
from time import process_time

import numpy as np
from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptEncoder, PromptSpec
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.base import Engine, Float32, ForwardInputs, Int64
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.cache import KVCache
from specbeam.engines.onnxruntime.dense import OrtEngine
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import Drafting, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.prefix import SharedPrefix

WARM_UP = 3  # batches
ITEMS, LEVELS, CODES = 12_000, 4, 256  # of the catalog that is made up


@dataclass(frozen=True, eq=False)
class Calls:
    """The calls that one batch made, and what came of them."""

    inputs: list[ForwardInputs]
    results: list[Float32]


class Recorder(Engine):
    """Another engine, of which every call is kept."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(columns=engine.columns)
        self._engine, self.calls = engine, Calls([], [])

    def new_cache(self, batch: int) -> KVCache:
        return self._engine.new_cache(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        logprobs = self._engine.forward(inputs, cache)
        self.calls.inputs.append(inputs)
        self.calls.results.append(logprobs.copy())
        return logprobs


class Slots(KVCache):
    """A number of requests and of slots, without what would be in them."""

    def __init__(self, batch: int, length: int = 0) -> None:
        self._batch, self._length = batch, length

    @property
    def batch(self) -> int:
        return self._batch

    @property
    def length(self) -> int:
        return self._length

    def copy(self) -> "Slots":
        return Slots(self._batch, self._length)

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        self._batch, self._length = len(rows), self._length if slots is None else slots.shape[1]

    def join(self, other: KVCache) -> None:
        self._batch, self._length = self._batch + other.batch, max(self._length, other.length)

    def append(self, tokens: int) -> None:
        self._length += tokens


class Player(Engine):
    """Answers at once, with what was recorded."""

    def __init__(self, columns: int) -> None:
        super().__init__(columns=columns)
        self.results: list[Float32] = []  # those of the next batch's calls

    def new_cache(self, batch: int) -> KVCache:
        return Slots(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, Slots)
        cache.append(inputs.input_ids.shape[1])
        if not self.results:  # the beginning that all prompts share
            return np.zeros((*inputs.logit_rows.shape, self.columns), np.float32)
        return self.results.pop(0)


def bare(prefix: SharedPrefix, calls: Calls) -> None:
    """The calls alone."""
    cache = prefix.new_cache(len(calls.inputs[0].input_ids))
    for inputs in calls.inputs:
        if len(inputs.input_ids) < cache.batch:  # somebody was done
            cache.keep(np.arange(len(inputs.input_ids)))
        prefix.engine.forward(inputs, cache)


def runs(prefix: SharedPrefix, calls: Calls) -> list[Callable[[], None]]:
    """What ONNX Runtime does in these calls, on inputs that lie ready."""
    assert isinstance(prefix.engine, OrtEngine)
    cache, prepared = prefix.new_cache(len(calls.inputs[0].input_ids)), []
    for inputs in calls.inputs:
        if len(inputs.input_ids) < cache.batch:
            cache.keep(np.arange(len(inputs.input_ids)))
        prepared.append(partial(prefix.engine.run, prefix.engine.bound(inputs, cache)))
        prefix.engine.forward(inputs, cache)
    return prepared


class Contest:
    """The plain loop of one engine, and the same loop on what that engine has answered."""

    def __init__(self, loaded: Loaded, batch: int) -> None:
        plain = partial(Recommender, planning=FixedPlanning(None), batching=batch)
        self._recorder, self._player = Recorder(loaded.target), Player(loaded.target.columns)
        self._recording = plain(replace(loaded, target=self._recorder))
        self._loop, self._host = plain(loaded), plain(replace(loaded, target=self._player))
        self._prefix = SharedPrefix(loaded.target, np.array(loaded.prompts.spec.prefix_ids, np.int64))

    def recorded(self, group: list[list[str]], k: int) -> Calls:
        """A batch's calls."""
        self._recorder.calls = Calls([], [])
        self._recording.recommend(group, k)
        return self._recorder.calls

    def seconds(self, group: list[list[str]], k: int, turn: int) -> dict[str, float]:
        """Processor time of one batch: of all who can serve it, in an order that changes."""
        calls = self.recorded(group, k)
        contestants = {"loop": partial(self._loop.recommend, group, k), "calls": partial(bare, self._prefix, calls)}
        if isinstance(self._prefix.engine, OrtEngine):
            prepared = runs(self._prefix, calls)
            contestants["runs"] = lambda: [run() for run in prepared]
        self._player.results = list(calls.results)
        contestants["host"] = partial(self._host.recommend, group, k)
        names = list(contestants)
        turn %= len(names)
        return {name: elapsed(contestants[name]) for name in (*names[turn:], *names[:turn])}

    def python_calls(self, group: list[list[str]], k: int) -> int:
        """How many functions, ours and the libraries', the host calls for one batch."""
        self._player.results = list(self.recorded(group, k).results)
        with Profile() as profile:
            self._host.recommend(group, k)
        return int(Stats(profile).total_calls)  # type: ignore[attr-defined]


def elapsed(work: Callable[[], object]) -> float:
    """Seconds of this process's processors that `work` takes."""
    start = process_time()
    work()
    return process_time() - start


def made_up() -> tuple[Loaded, list[list[str]]]:
    """A catalog, an engine and histories of no shop."""
    rng = np.random.default_rng(0)
    rows = 10 + np.arange(LEVELS) * CODES + rng.integers(0, CODES, (ITEMS, LEVELS))
    trie = ItemTrie.build(rows)
    names = tuple(map(str, range(ITEMS)))
    catalog = Catalog(names, tuple(tuple(map(str, row)) for row in rows.tolist()), (None,) * ITEMS)
    spec = PromptSpec("{history}", "", (), (), (), 20)
    histories = [[names[item] for item in rng.integers(0, ITEMS, rng.integers(3, 20))] for _ in range(4000)]
    engine = ScriptedEngine(len(trie.vocabulary))
    return Loaded(catalog, trie, PromptEncoder(spec, trie.item_tokens(), 1000), engine), histories


def of_bundle(options: Namespace) -> tuple[Loaded, list[list[str]]]:
    """A bundle's target, and real users."""
    bundle = Bundle.open(options.bundle)
    engine = options.engine or default_engine(bundle)
    loaded = Loaded.of(bundle, bundle.items(), engine, Drafting(drafter="none"), threads=options.threads or 1)
    return loaded, real_users(options.data)[1]


def measure(contest: Contest, groups: list[list[list[str]]], k: int, batch: int) -> dict[str, float]:
    """Medians of milliseconds a user, and Python calls a user."""
    taken: list[dict[str, float]] = []
    for turn, group in enumerate(tqdm([*groups[:WARM_UP], *groups], desc=f"K={k}, batch {batch}", disable=None)):
        taken.append(contest.seconds(group, k, turn))
    taken = taken[WARM_UP:]
    result = {name: 1000 / batch * median(seconds[name] for seconds in taken) for name in taken[0]}
    result["over"] = median(seconds["loop"] / seconds["calls"] for seconds in taken)
    result["python"] = median(contest.python_calls(group, k) for group in groups[:8]) / batch
    return result


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--scripted", action="store_true", help="no bundle: an engine and a catalog that are made up")
    parser.set_defaults(top_k=[1, 5, 20])


def main() -> None:
    options = arguments(__doc__, users=100, more=add_options, bundled=lambda options: not options.scripted)
    loaded, histories = made_up() if options.scripted else of_bundle(options)
    histories = sorted(histories[:: max(len(histories) // options.users, 1)][: options.users], key=len)
    rows, result = [], []
    for batch in options.batches:
        contest = Contest(loaded, batch)
        groups = [histories[i : i + batch] for i in range(0, len(histories) - batch + 1, batch)]
        for k in options.top_k:
            row = measure(contest, groups, k, batch)
            shown = [f"{row[name]:.2f}" if name in row else "-" for name in ("loop", "calls", "runs", "host")]
            rows.append([batch, k, *shown, row["over"], f"{row['python']:.0f}"])
            result.append({"batch": batch, "k": k, **row})
    print(f"{options.users} users, ms of processor time a user, medians:\n")
    print_table(["batch", "K", "loop", "bare calls", "bare runs", "host", "loop / calls", "Python calls"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
