"""The head with the catalog's columns alone, beside the whole vocabulary's, under constrained scoring.

Targets have twelve layers of 768 (85 M parameters, embedding and head apart) and random weights; the draft is their
first layer. The two engines serve the same requests in turns, batch by batch, in one process, and their lists are
checked to be equal; what counts is processor time, by default of one thread. `plain` drafts nothing, `drafted` has the
same shape drafted in every round.
"""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
from tqdm import tqdm

from benchmarks.shared import dump, print_table, ranking_fault
from benchmarks.speed.made_pairs import identifiers, kept_pair, made_parser
from benchmarks.speed.never_loses import FEWEST, Cell, ratio, requests, shown
from quick_builds import few_timings
from specbeam.engines.bundle.default import default_engine
from specbeam.engines.bundle.facts import CONSTRAINED
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import Drafting, DraftShape, Recommender, Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.types import Float64, ScoringKind

LEVELS = 4
SHAPE = {
    "hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 12,
    "num_hidden_layers": 12, "tie_word_embeddings": True,
}  # fmt: skip
HEADS: tuple[ScoringKind, ...] = ("constrained", "full")  # what engines are loaded for
WAYS = {"plain": None, "drafted": DraftShape(40, LEVELS - 1)}


def opened(bundle: Bundle, threads: int) -> dict[ScoringKind, Loaded]:
    """The engines with either head."""
    name = default_engine(bundle)
    if not bundle.engine_facts(name).has_catalog_head("target"):
        raise SystemExit(f"{bundle.path}: {name} has no {CONSTRAINED}. Run: {bundle.rebuild(name)}")
    drafting = Drafting("none" if bundle.manifest.draft is None else "model")
    return {head: Loaded.of(bundle, bundle.items(), name, drafting, threads=threads, scoring=head) for head in HEADS}


def searches(engines: dict[ScoringKind, Loaded], shape: DraftShape | None, batch: int) -> dict[str, Recommender]:
    """One for either head."""
    return {
        head: Recommender(
            loaded if shape else replace(loaded, draft=None), planning=FixedPlanning(shape),
            verification=Verification(scoring="constrained"), batching=batch,
        )
        for head, loaded in engines.items()
    }  # fmt: skip


def measure(arms: dict[str, Recommender], batch: int, options: Namespace) -> Float64:
    """[batches, 2] processor seconds with either head; raises SystemExit where their lists differ."""
    rng, seconds = np.random.default_rng(0), list[list[float]]()
    cell = Cell(options.top_k, batch, options.prompt, LEVELS)
    while len(seconds) <= FEWEST or np.sum(seconds[1:]) < options.seconds:
        group, spent, lists = requests(arms["full"], cell, rng), [0.0, 0.0], {}
        for i in rng.permutation(2).tolist():
            start = process_time()
            lists[HEADS[i]] = arms[HEADS[i]].run(group, options.top_k)
            spent[i] = process_time() - start
        seconds.append(spent)
        for one, other in zip(*lists.values(), strict=True):
            if fault := ranking_fault(*([(item.item, item.score) for item in each.items] for each in (one, other))):
                raise SystemExit(f"The lists differ: {fault}")
    return np.array(seconds[1:])  # what is done once is nobody's share


def bundles(options: Namespace) -> dict[str, Bundle]:
    """By what they are called: those that are given, and made ones."""
    found = {path.parent.name if path.name == "bundle" else path.name: Bundle.open(path) for path in options.bundle}
    for rows in tqdm(options.rows, desc="pairs", disable=None):
        for columns in options.columns:
            named = identifiers(LEVELS, np.random.default_rng(0), columns // LEVELS)
            folder = options.work / f"rows-{rows}-columns-{columns}"
            with few_timings():  # nothing here is planned
                found[f"{rows:,} rows"] = kept_pair(
                    folder, named, options.threads, scoring="constrained", vocab_size=rows, **SHAPE
                )
    return found


def parsed() -> Namespace:
    parser = made_parser(__doc__)
    parser.add_argument("--bundle", type=Path, nargs="*", default=[], help="bundles to measure as well")
    parser.add_argument("--rows", type=int, nargs="*", default=[32_000, 152_000], help="of the vocabulary")
    parser.add_argument("--columns", type=int, nargs="*", default=[1024], help="about so many tokens in the catalog")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--prompt", type=int, default=80, help="tokens (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of processor time a line (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    rows, result = list[list[object]](), list[dict[str, object]]()
    for name, bundle in bundles(options).items():
        engines, columns = opened(bundle, options.threads), bundle.manifest.columns
        for way in options.ways:
            for batch in options.batch_size:
                times = measure(searches(engines, WAYS[way], batch), batch, options)
                sliced, whole = (1000 * times.mean(axis=0) / batch).tolist()
                gain, _ = ratio([times])
                rows.append([name, columns, way, batch, len(times), f"{whole:.1f}", f"{sliced:.1f}", shown(gain)])
                result.append({
                    "bundle": name, "columns": columns, "way": way, "batch": batch, "seconds": times.tolist(),
                    "ratio": [gain.value, gain.low, gain.high],
                })  # fmt: skip
    heads = ["pair", "columns", "search", "batch", "batches", "whole head, ms a user", "catalog's", "whole / catalog's"]
    print_table(heads, rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
