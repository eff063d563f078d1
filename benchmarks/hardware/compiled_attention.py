"""Which attentions TensorRT for RTX compiles to one kernel, by type, heads and kind of GPU. It takes no GPU.

Each is an `Attention` by itself with an additive mask, over calls of 1 to 8 requests, 1 to 337 rows and 1 to 1,104
slots. "fused": one kernel; "written out": products with softmax between them; "-": not compiled.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from benchmarks.shared import arguments, dump, print_table
from specbeam.catalog.errors import EngineError
from specbeam.engines.tensorrt.build import TrtOptions, new_config, parse_graph
from specbeam.engines.tensorrt.flavour import RTX
from specbeam.engines.tensorrt.kernels import count_kernels
from specbeam.engines.tensorrt.layers import layers_of_log
from specbeam.engines.tensorrt.library import Messages, import_tensorrt
from specbeam.engines.tensorrt.monitor import new_monitor
from specbeam.engines.tensorrt.profiles import Profile

TYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float"}
SIZES = (8, 16, 32, 64, 80, 96, 128, 192, 256, 264)
HEADS = ((8, 8), (8, 2), (8, 1), (1, 1))  # of queries; of keys and values
CALLS = ((1, 1, 1), (4, 40, 80), (8, 337, 1104))  # requests, rows, slots


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--targets", nargs="+", default=RTX.targets, help="compute capabilities to compile for")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="numbers of a head")
    parser.add_argument("--mask", default="additive", choices=["additive", "booleans"])


def made(path: Path, kind: str, heads: tuple[int, int], size: int, mask: str) -> Profile:
    """Write an attention; its one profile."""
    queries, values = heads
    of = TYPES[kind]
    text = (
        f'<ir_version: 10, opset_import: ["" : 23]> g ({of}[batch, {queries}, sequence, {size}] q, '
        f"{of}[batch, {values}, past, {size}] k, {of}[batch, {values}, past, {size}] v, "
        f"{'bool' if mask == 'booleans' else of}[batch, 1, sequence, past] m) => "
        f"({of}[batch, {queries}, sequence, {size}] y) {{ y = Attention (q, k, v, m) }}"
    )
    onnx.save(onnx.parser.parse_model(text), path)
    calls = [  # smallest, typical, largest
        {
            "q": (batch, queries, rows, size), "k": (batch, values, slots, size), "v": (batch, values, slots, size),
            "m": (batch, 1, rows, slots),
        }
        for batch, rows, slots in CALLS
    ]  # fmt: skip
    least, typical, most = calls
    return Profile(name="attention", shapes={name: (least[name], typical[name], most[name]) for name in least})


def compiled(trt: Any, graph: Path, profile: Profile, target: str) -> str:
    """What became of an attention for one kind of GPU."""
    messages = Messages()
    builder, network, _parser = parsed = parse_graph(trt, RTX, graph, messages)
    monitor = new_monitor(trt, lambda what, done, total: None)
    config = new_config(trt, builder, [profile], TrtOptions(compute_capabilities=(target,)), monitor)
    data = builder.build_serialized_network(network, config)
    del parsed
    if data is None:
        return "-"
    (found,) = count_kernels(layers_of_log(messages.layers), 1)
    return "fused" if found.fused else "written out"


def main() -> None:
    options = arguments(__doc__, None, more, bundled=lambda options: False)
    try:
        trt = import_tensorrt(RTX)
    except EngineError as error:
        raise SystemExit(str(error)) from error
    result: list[dict[str, Any]] = []
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        cases = [(kind, heads, size) for kind in TYPES for heads in HEADS for size in options.sizes]
        for kind, heads, size in tqdm(cases, disable=None):
            profile = made(Path(name) / "model.onnx", kind, heads, size, options.mask)
            found = {target: compiled(trt, Path(name) / "model.onnx", profile, target) for target in options.targets}
            result.append({"type": kind, "heads": heads, "size": size, **found})
            rows.append([kind, f"{heads[0]}/{heads[1]}", size, *found.values()])
    print_table(["type", "heads of queries/values", "size", *options.targets], rows)
    dump(options.output, result)


if __name__ == "__main__":
    main()
