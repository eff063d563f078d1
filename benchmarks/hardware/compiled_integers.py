"""What TensorRT for RTX makes of graphs of integers, by the kind of GPU they are compiled for. It takes no GPU.

A row is a graph, a way of quantizing it and a compute capability: seconds, bytes, and the kernels of one call (of the
first optimization profile). "Apart" are kernels that turn integer weights into floating point and write that down.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table
from specbeam.calib.quantize import Method, quantize
from specbeam.calib.tensorrt import unmeasured_ranges
from specbeam.catalog.errors import EngineError
from specbeam.engines.backend import GraphToBuild
from specbeam.engines.bundle.facts import Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.registry import find_backend
from specbeam.engines.tensorrt.build import TrtOptions
from specbeam.engines.tensorrt.kernels import sort_of
from specbeam.engines.tensorrt.layers import Layer, read_layers

TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0")
WAYS: tuple[Method | None, ...] = (None, "static", "weight8", "weight4")
INTEGERS = {"int8", "int4"}


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="compute capabilities to compile for")
    parser.add_argument("--between", default="fp16", choices=["fp16", "bf16"], help="the type between the integers")


def graphs(bundle: Bundle, folder: Path) -> Iterator[tuple[Role, str, Path]]:
    """Every graph that is compiled, in float32."""
    for role in get_args(Role):
        for way in WAYS:
            if way is None:
                yield role, "none", bundle.graph(role)
                continue
            path = folder / f"{role}-{way}.onnx"
            measured = unmeasured_ranges(bundle.graph(role)) if way == "static" else None
            quantize(bundle.graph(role), path, way, ranges=measured, symmetric=True, weights="dequantize")
            yield role, way, path


def counted(layers: tuple[Layer, ...]) -> dict[str, int]:
    """Kernels of the first profile."""
    found: Counter[str] = Counter()
    for layer in (layer for layer in layers if layer.profile == 0):
        sort, integers = sort_of(layer), bool(INTEGERS & {*layer.inputs, *layer.weights})
        weights = bool(INTEGERS & set(layer.weights))
        if sort == "product":
            found["integer products" if integers else "float products"] += 1
        elif sort == "other":
            found["apart" if weights else "others"] += 1
        else:
            found[sort] += 1
    return dict(found)


def compiled(bundle: Bundle, role: Role, source: Path, target: str, between: Any, folder: Path) -> dict[str, Any]:
    """One graph compiled for one kind of GPU; the reason where it cannot be."""
    backend = find_backend("tensorrt-rtx", options=TrtOptions(compute_capabilities=(target,)))
    folder.mkdir()
    start = perf_counter()
    graph = GraphToBuild(bundle, role, between, source, between, folder, folder / "scratch", 1)
    try:
        backend.build(graph, lambda what, done, total: None)
    except EngineError as error:
        return {"error": " ".join(str(error).split())}
    seconds, size = perf_counter() - start, (folder / "model.plan").stat().st_size
    return {"seconds": seconds, "bytes": size, "kernels": counted(read_layers(folder, ""))}


def main() -> None:
    options = arguments(__doc__, None, more)
    bundle = Bundle.open(options.bundle)
    rows: list[list[object]] = []
    result: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for role, way, source in tqdm(list(graphs(bundle, folder)), disable=None):
            for target in options.targets:
                found = compiled(bundle, role, source, target, options.between, folder / f"{role}-{way}-{target}")
                result.append({"role": role, "way": way, "target": target, **found})
                if "error" in found:
                    rows.append([role, way, target, "-", "-", found["error"][:80], "", "", "", ""])
                    continue
                kinds = ("integer products", "apart", "float products", "attention", "others")
                kernels = [found["kernels"].get(kind, 0) for kind in kinds]
                rows.append([role, way, target, f"{found['bytes'] / 1e6:.2f}", f"{found['seconds']:.1f}", *kernels])
    head = ["graph", "integers", "GPU", "plan MB", "built in s", "products that read integers", "weights apart"]
    print_table([*head, "float products", "attentions", "other kernels"], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
