"""The last layer computed for the wanted rows alone, beside graphs that compute it for every token: calls, in turns.

Pairs of random weights (`made_pairs`), each exported and built twice, without and with `graphs.wanted_rows`. Of a
prompt's call one row is wanted, of a call of 20 nodes all of them. What counts is processor time, by default of one
thread.
"""

from argparse import Namespace
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import numpy as np
from tqdm import tqdm

from benchmarks.shared import dump, print_table
from benchmarks.speed.catalog_head import SHAPE
from benchmarks.speed.made_pairs import identifiers, kept_pair, made_parser
from benchmarks.speed.never_loses import ratio, shown
from quick_builds import few_timings
from specbeam.engines.base import Engine
from specbeam.engines.bundle.facts import Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.latency import call, random_tokens
from specbeam.engines.registry import load_engine
from specbeam.export import onnx as exporter
from specbeam.runtime.types import Float64

PAIRS: dict[str, dict[str, Any]] = {"6 x 256": {}, "12 x 768": SHAPE}  # the target's layers, and their width
PICKS: dict[str, Callable[[Any], None]] = {"early": exporter.pick_rows_early, "late": lambda model: None}
NODES, LEVELS = 20, 4
ROLES: tuple[Role, ...] = ("target", "draft")


def bundles(work: Path, name: str, threads: int) -> dict[str, Bundle]:
    """One pair's, by where its graphs pick rows."""
    named, found = identifiers(LEVELS, np.random.default_rng(LEVELS)), {}
    for side, pick in PICKS.items():
        folder = work / f"{name.replace(' ', '')}-{side}"
        with few_timings(), patch.object(exporter, "pick_rows_early", pick):
            found[side] = kept_pair(folder, named, threads, **PAIRS[name])
    return found


def measure(
    engines: dict[str, Engine], bundle: Bundle, role: Role, batch: int, past: int, new: int, options: Namespace
) -> Float64:
    """[rounds, 2] processor seconds of one call, with rows picked early and late."""
    facts, rng, seconds = bundle.facts(role), np.random.default_rng(0), np.zeros((options.rounds + 1, 2))
    prompt, tokens = random_tokens(facts, 0, past, batch), random_tokens(facts, past, new, batch)
    cached = {side: engine.new_cache(batch) for side, engine in engines.items()}
    if past:
        for side, engine in engines.items():
            engine.forward(call(prompt, 0, cached[side], 1), cached[side])
    for each in seconds:
        for i in rng.permutation(2).tolist():
            side = list(PICKS)[i]
            cache = cached[side].copy()
            inputs = call(tokens, past, cache, NODES if past else 1)
            start = process_time()
            engines[side].forward(inputs, cache)
            each[i] = process_time() - start
    return seconds[1:]


def parsed() -> Namespace:
    parser = made_parser(__doc__)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompts", type=int, nargs="+", default=[80, 400], help="tokens")
    parser.add_argument("--rounds", type=int, default=40)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    rows, result = list[list[object]](), list[dict[str, object]]()
    for pair in options.pairs:
        sides = bundles(options.work, pair, options.threads)
        for role in ROLES:
            engines = {
                side: load_engine(bundle, role, bundle.engine_names()[0], threads=options.threads)
                for side, bundle in sides.items()
            }
            calls = [(0, prompt) for prompt in options.prompts] + [(options.prompts[0], NODES)]
            for batch, (past, new) in tqdm([*product(options.batch_size, calls)], desc=f"{pair}, {role}", disable=None):
                times = measure(engines, sides["early"], role, batch, past, new, options)
                gain, _ = ratio([times])
                what = f"{new} nodes on {past}" if past else f"a prompt of {new}"
                early, late = (1000 * np.median(times, axis=0)).tolist()
                rows.append([pair, role, batch, what, late, early, shown(gain)])
                result.append({
                    "pair": pair, "role": role, "batch": batch, "past": past, "new": new, "seconds": times.tolist(),
                })  # fmt: skip
    print_table(["layers", "graph", "batch", "call", "all rows, ms", "wanted rows", "all / wanted"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
