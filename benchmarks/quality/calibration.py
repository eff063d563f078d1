"""Ways of quantizing the target, compared on users that nothing was calibrated on: overlap, NDCG, divergence, time.

Every way is calibrated on the same recorded searches and ranks the same users; with nothing left out or left in
floating point, so that the ways are compared and not the choice among them.
"""

import argparse
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table
from specbeam.calib.data import read_examples, split
from specbeam.calib.gate import compare
from specbeam.calib.int8 import Int8Build
from specbeam.calib.options import Int8Options
from specbeam.catalog.histories.dataset import Example
from specbeam.engines.base import Engine
from specbeam.engines.build import Order
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.machine.processors import available_threads
from specbeam.engines.onnxruntime.backend import OrtBackend
from specbeam.runtime import DraftShape, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning

WAYS = {
    "static, min-max": Int8Options(method="static", estimator="minmax", smooth=None),
    "static, percentile": Int8Options(method="static", estimator="percentile", smooth=None),
    "static, entropy": Int8Options(method="static", estimator="entropy", smooth=None),
    "static, smoothed": Int8Options(method="static"),
    "static, smoothed, layers.0 kept": Int8Options(method="static", keep=("layers.0",)),
    "dynamic": Int8Options(method="dynamic", smooth=None),
    "dynamic, smoothed": Int8Options(method="dynamic"),
    "dynamic, smoothed, layers.0 kept": Int8Options(method="dynamic", keep=("layers.0",)),
    "weight8": Int8Options(method="weight8", smooth=None),
    "weight8, smoothed": Int8Options(method="weight8"),
    "weight4": Int8Options(method="weight4", smooth=None),
    "weight4, smoothed": Int8Options(method="weight4"),
}


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--calibration-size", type=int, default=200)
    parser.add_argument("--drafted", type=int, default=200, help="users to search with and without drafting")
    parser.add_argument("--symmetric", action="store_true", help="static without zero points, as TensorRT takes it")


class Symmetric(OrtBackend):
    """ONNX Runtime, quantized as TensorRT must be."""

    zero_points = False


def drafted_the_same(build: Int8Build, target: Engine, examples: Sequence[Example]) -> float:
    """Share of users whose list is the same, in order, alone without drafting and in a batch of 8 with it."""
    bundle = build.order.bundle
    trie, histories = bundle.trie(), [example.history for example in examples]
    lists = []
    for draft, batch in ((None, 1), (build.floats["draft"], 8)):
        loaded = Loaded(bundle.catalog(), trie, bundle.prompts(trie), target, draft)
        recommender = Recommender(loaded, planning=FixedPlanning(DraftShape() if draft else None), batching=batch)
        lists.append([[item.item for item in result.items] for result in recommender.recommend(histories, 20)])
    return float(np.mean([a == b for a, b in zip(*lists, strict=True)]))


def main() -> None:
    options = arguments(__doc__, None, more)
    bundle, threads = Bundle.open(options.bundle), options.threads or available_threads()
    examples, _ = read_examples([options.data], bundle.catalog())
    data = split(examples, options.calibration_size, options.users or Int8Options().gate_size, 0)
    backend = (Symmetric if options.symmetric else OrtBackend)("cpu")
    order = Order(bundle, backend, {"target": "int8", "draft": "fp32"}, threads)
    rows, result = [], {}
    with tempfile.TemporaryDirectory() as folder:
        first = Int8Build(order, Int8Options(), data, None, Path(folder), lambda *_: None)
        start = perf_counter()
        first.record()
        recorded = perf_counter() - start
        reference = first.ranked(first.floats["target"], "original")
        for name in tqdm(options.ways, disable=None):
            scratch = Path(folder, name)
            scratch.mkdir()
            build = Int8Build(order, WAYS[name], data, None, scratch, lambda *_: None, first.calls, first.floats)
            start = perf_counter()
            of = build.prepare("target")
            seconds = recorded + perf_counter() - start
            (candidate,) = build.candidates(of, WAYS[name].keep)
            gate = compare(reference, build.ranked(candidate.open(of), name), data.gate)
            same = drafted_the_same(build, candidate.open(of), data.gate[: options.drafted])
            ndcg, recall = gate.metrics["ndcg@10"], gate.metrics["recall@20"]
            result[name] = {"gate": gate, "trial": candidate.trial, "seconds": seconds}
            rows.append(
                [
                    name, f"{gate.overlap['20']:.1%}", f"{ndcg.value:.4f}", f"{ndcg.low:+.1%} to {ndcg.high:+.1%}",
                    f"{recall.value:.4f}", f"{candidate.trial.divergence:.1e}", f"{seconds:.0f}",
                    "yes" if gate.passed else "no", f"{same:.1%}",
                ]
            )  # fmt: skip
    print(f"{len(data.calibration)} histories calibrated on, {len(data.gate)} requests compared; float32: NDCG@10 "
          f"{ndcg.reference:.4f}, Recall@20 {recall.reference:.4f}")  # fmt: skip
    head = ["way", "overlap@20", "NDCG@10", "change (95 %)", "Recall@20", "divergence", "calibration s", "gate"]
    head.append("same lists when drafted")
    print_table(head, rows)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    dump(options.output, {name: {"seconds": of["seconds"]} for name, of in result.items()})


if __name__ == "__main__":
    main()
