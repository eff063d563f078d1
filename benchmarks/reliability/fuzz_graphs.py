"""Graphs and the record of a default engine as targets of `fuzz.py`."""

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from benchmarks.reliability.fuzz_artifacts import ENGINE, MODEL, Artifacts
from benchmarks.reliability.fuzz_mutations import Target, documents, raw_bytes
from specbeam.engines.bundle.default import DEFAULT_SCHEMA, DefaultEngine, default_engine
from specbeam.engines.bundle.sealed import sealed
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.graphs.files import load_graph
from tiny_graphs import tiny_graph

OF_TINY_GRAPH = replace(MODEL, kv_heads=2, head_dim=8)


def graph_targets(folder: Path) -> list[Target]:
    """What reads a graph, and what runs it; and default.json, where a bundle has two engines."""
    graph = tiny_graph("llama").read_bytes()
    made = Artifacts(folder / "bundle")
    engines = folder / "bundle" / "engines"
    (engines / "other").mkdir()
    (engines / "other" / "engine.json").write_bytes((engines / ENGINE / "engine.json").read_bytes())
    default = sealed(DefaultEngine(schema_version=DEFAULT_SCHEMA, engine=ENGINE))

    def use_default(data: bytes) -> None:
        (engines / "default.json").write_bytes(data)
        default_engine(made.bundle)

    return [
        Target("graph, read", _of(folder / "read.onnx", load_graph), raw_bytes(graph)),
        Target("graph, in ONNX Runtime", _of(folder / "run.onnx", _session), raw_bytes(graph)),
        Target("default.json, bytes", use_default, raw_bytes(default)),
        Target("default.json, resealed", use_default, documents(default, DefaultEngine)),
    ]


def _session(path: Path) -> object:
    return load_ort_engine(path, OF_TINY_GRAPH, device="cpu", precision="fp32", threads=1)


def _of(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def use(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return use
