"""Pools of texts by size and groups: time and memory of building, and what a round's retrieval takes.

The texts are synthetic: phrases of 2 to 11 words, drawn from Zipf's law, half of them by the text's topic, of which
there are a hundred; groups are topics. Contexts are the beginnings of texts that are not in the pool. Resident
memory is a fresh process's peak; what is memory-mapped counts as far as it was read.
"""

import argparse
import gc
import re
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specbeam.pools import TextDrafting, TextPool, propose
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.read import Text

VOCABULARY, PHRASES, TOPICS, LENGTH = 32_000, 50_000, 100, 100
WARM_UP = 20
BATCHES = (1, 8)
Tokens = NDArray[np.int64]


class Writer:
    """Writes texts, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(7)  # phrases are common to all writers
        lengths = rng.integers(2, 12, PHRASES)
        self._ends = np.cumsum(lengths)
        self._words = np.minimum(rng.zipf(1.2, self._ends[-1]), VOCABULARY) - 1
        self._rng = np.random.default_rng(seed)

    def write(self, texts: int) -> tuple[Tokens, list[Tokens]]:
        """Topics [texts], and each text's tokens, at most `LENGTH`."""
        topics = self._rng.permutation(texts) % TOPICS
        count = LENGTH // 2  # phrases of a text, of which some are cut off
        rank = np.minimum(self._rng.zipf(1.15, (texts, count)), PHRASES) - 1
        own = self._rng.random((texts, count)) < 0.5
        phrases = (rank + own * (1 + topics[:, None]) * (PHRASES // TOPICS)) % PHRASES
        return topics, [self._joined(row) for row in phrases]

    def _joined(self, phrases: Tokens) -> Tokens:
        spans = zip(np.append(0, self._ends)[phrases], self._ends[phrases], strict=True)
        return np.concatenate([self._words[start:end] for start, end in spans])[:LENGTH]


def peak_megabytes() -> float:
    """The most memory that this process had resident."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1000 if found else float("nan")


def build(folder: Path, tokens: int, groups: int) -> dict[str, Any]:
    """Build a pool; how long that took, and how large it is."""
    topics, written = Writer(seed=0).write(tokens // LENGTH)
    names = {f"t{i}": str(topic % groups) for i, topic in enumerate(topics)} if groups > 1 else None
    texts = [Text(f"t{i}", text.astype(np.uint32)) for i, text in enumerate(written)]
    del written
    before, start = peak_megabytes(), perf_counter()
    facts = build_text_pool(texts, folder, tokenizer_sha256="", reach=TextDrafting().reach, groups=names)
    seconds, megabytes = perf_counter() - start, sum(array.bytes for array in facts.arrays.values()) / 1e6
    own = [part.tokens for part in facts.groups.values()] or [facts.all.tokens]
    return {
        "build_seconds": seconds, "file_megabytes": megabytes, "group_tokens": int(np.median(own)),
        "build_peak_megabytes": peak_megabytes(), "texts_megabytes": before,
    }  # fmt: skip


def query(folder: Path, groups: int, rounds: int, drafting: TextDrafting) -> dict[str, Any]:
    """Open a pool and draft from it; milliseconds a request, by batch, of the groups' pools and of all texts."""
    start = perf_counter()
    pool = TextPool.open(folder)
    result: dict[str, Any] = {"open_seconds": perf_counter() - start}
    writer = Writer(seed=1)
    kinds: dict[str, Callable[[int], str | None]] = {"global": lambda topic: None}
    if groups > 1:
        kinds["group"] = lambda topic: str(topic % groups)
    for batch in BATCHES:
        topics, texts = writer.write(rounds * batch)
        ends = np.random.default_rng(batch).integers(2, LENGTH, len(texts))
        contexts = [text[:end] for text, end in zip(texts, ends, strict=True)]
        for kind, group_of in kinds.items():
            seconds = []
            for i in range(0, len(contexts), batch):
                sources = [[pool.source(group_of(topic))] for topic in topics[i : i + batch]]
                begun = perf_counter()
                propose(contexts[i : i + batch], sources, drafting)
                seconds.append((perf_counter() - begun) / batch)
            median, p99 = np.percentile(seconds[WARM_UP:], (50, 99)) * 1e3
            result[f"{kind}_{batch}"] = {"median_ms": float(median), "p99_ms": float(p99)}
    return result | {"query_peak_megabytes": peak_megabytes()}


def alone(function: Callable[..., dict[str, Any]], *given: object) -> dict[str, Any]:
    """Call a function in a process of its own, whose peak of memory is its own, too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(function, *given).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 3, 10, 100])
    parser.add_argument("--rounds", type=int, default=1000, help="calls that are timed (default: %(default)s)")
    parser.add_argument("--query", type=int, default=TextDrafting().query)
    parser.add_argument("--backoff", action="store_true")
    parser.add_argument("--output", help="write the result as JSON")
    options = parser.parse_args()
    from benchmarks.shared import dump, print_table  # which loads torch: not in the processes whose memory is measured

    drafting, rows, results = (
        TextDrafting(query=options.query, depth=14 - options.query, backoff=options.backoff),
        [],
        [],
    )
    for tokens in options.tokens:
        for groups in options.groups:
            folder = Path(tempfile.mkdtemp(prefix="specbeam-pool-")) / "pool"
            result = {"tokens": tokens, "groups": groups, **alone(build, folder, tokens, groups)}
            result |= alone(query, folder, groups, options.rounds, drafting)
            shutil.rmtree(folder.parent)
            gc.collect()
            results.append(result)
            rows.append([f"{tokens:,}", groups, f"{result['group_tokens']:,}", *figures(result)])
    print_table(
        ["tokens", "groups", "tokens of a group", "build s", "file MB", "peak MB building (texts alone)", "open s",
         "peak MB querying"] + [f"ms, {kind}, batch {batch}" for batch in BATCHES for kind in ("global", "group")],
        rows,
    )  # fmt: skip
    print("\nms: of one request, median / 99th percentile.")
    dump(options.output, results)


def figures(result: dict[str, Any]) -> list[str]:
    """A row's cells behind what was asked for."""
    cells = [f"{result['build_seconds']:.2f}", f"{result['file_megabytes']:.1f}"]
    cells.append(f"{result['build_peak_megabytes']:.0f} ({result['texts_megabytes']:.0f})")
    cells += [f"{result['open_seconds']:.3f}", f"{result['query_peak_megabytes']:.0f}"]
    for batch in BATCHES:
        for kind in ("global", "group"):
            times = result.get(f"{kind}_{batch}")
            cells.append(f"{times['median_ms']:.2f} / {times['p99_ms']:.2f}" if times else "")
    return cells


if __name__ == "__main__":
    main()
