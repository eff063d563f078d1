"""Which decoder architectures work: tiny random models, exported, compared and quantized, or the reason for refusal."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from specbeam.calib.quantize import quantize
from specbeam.calib.tensorrt import unmeasured_ranges
from specbeam.catalog.errors import SpecBeamError
from specbeam.engines.attention_mask import MASK_TYPES, dense_feed
from specbeam.engines.base import ForwardInputs
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.prepare import prepare_graph
from specbeam.export import export_bundle
from specbeam.export.parity import onnx_forward
from specbeam.graphs.files import load_graph
from specbeam.graphs.tensorrt import check_versions

SUPPORT = Path(__file__).parents[2] / "tests" / "support"
PATH = 4  # slots that a token of a graph with index inputs names
WAYS = {"fp16": None, "int8": "static", "int8-weights": "weight8"}


def examined(form: Any, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    from architecture_cases import equals_generate
    from quick_builds import few_timings
    from tiny_models import tiny_catalog

    target, index, bundle = form.save(folder / "target"), tiny_catalog(folder / "index.json"), folder / "bundle"
    row: dict[str, Any] = {"name": form.name, "architecture": _architecture(target)}
    told: list[str] = []
    try:
        manifest = export_bundle(target, None, index, None, bundle, progress=told.append)
    except SpecBeamError as error:
        return row | {"refused": str(error).replace(str(folder), "").replace("/target", "it")}
    summary = next(line for line in told if "agrees" in line)
    row["parity"] = summary[summary.index("fp32 logprobs") + len("fp32 logprobs ") :].split(",")[0]
    row["slot_positions"], row["context"] = manifest.target.slot_positions, manifest.target.context
    with few_timings():
        build_engine(bundle, threads=1)
    try:
        equals_generate(bundle, "onnxruntime-cpu-fp32")
        row["generate"] = "equal"
    except AssertionError as error:
        row["generate"] = f"differs: {error}"
    return row | {"forms": {name: _form(Bundle.open(bundle), name, folder / name) for name in WAYS}}


def _architecture(target: Path) -> str:
    names = json.loads((target / "config.json").read_text())["architectures"]
    return str(names[0])


def _form(bundle: Bundle, precision: str, folder: Path) -> dict[str, str]:
    """Whether ONNX Runtime runs a graph in a precision, and TensorRT's rules let one through; else why not."""
    graph, method, said = bundle.graph("target"), WAYS[precision], {}
    folder.mkdir()
    try:
        if method is not None:
            quantized = folder / "cpu.onnx"
            ranges = unmeasured_ranges(bundle, "target") if method == "static" else None
            quantize(graph, quantized, method, ranges=ranges, symmetric=False)  # type: ignore[arg-type]
            _run(quantized, bundle)
            quantize(graph, folder / "gpu.onnx", method, ranges=ranges, symmetric=True, weights="dequantize")  # type: ignore[arg-type]
            graph = folder / "gpu.onnx"
        said["onnxruntime"] = "yes"
    except Exception as error:  # of any library: it is what the table tells
        said["onnxruntime"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    try:
        ready = prepare_graph(
            graph, folder / "model.onnx", exported="fp32", wanted="fp16", mask_slots=PATH, decomposed=True
        )
        check = check_versions(load_graph(ready), precision)
        refused = [found for version in check.versions for found in version.findings if found.severity == "refused"]
        said["tensorrt"] = "yes" if check.importable else refused[0].message
    except Exception as error:
        said["tensorrt"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return said


def _run(graph: Path, bundle: Bundle) -> None:
    """One call of a graph of the contract; raises where it cannot be made, or gives what is no number."""
    facts = bundle.manifest.target
    ids = np.array([[2, 10, 16, 22]])
    below = np.arange(1, 5)[None]
    inputs = ForwardInputs(ids, below - 1, below, np.full((1, 4, 1), -1), np.array([[3]]))
    feed = dense_feed(inputs, 0, MASK_TYPES["fp32"], positions=facts.slot_positions)
    positions = [feed.pop("slot_positions")] if facts.slot_positions else []
    past = [np.zeros((1, facts.kv_heads, 0, facts.head_dim), np.float32)] * len(facts.cache_names)
    logprobs = onnx_forward(graph)([*feed.values(), *past, *positions])[0]
    if not np.isfinite(logprobs).all():
        raise ValueError("gives what is no number")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| decoder | graph against model | lists against `generate` | ONNX Runtime | TensorRT's rules |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        if "refused" in row:
            lines.append(f"| {row['name']} (`{row['architecture']}`) | refused: {row['refused']} | | | |")
            continue
        runs, imports = (
            ", ".join(name for name, said in row["forms"].items() if said[by] == "yes") or "none"
            for by in ("onnxruntime", "tensorrt")
        )
        lines.append(
            f"| {row['name']} (`{row['architecture']}`) | {row['parity']} | {row['generate']} | {runs} | {imports} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of the forms in tests/support/architecture_cases.py (default: all)")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    sys.path.insert(0, str(SUPPORT))
    from architecture_cases import FORMS

    rows = []
    for form in FORMS:
        if options.names and form.name not in options.names:
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows.append(examined(form, Path(folder)))
        print(f"{form.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if options.output:
            options.output.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
