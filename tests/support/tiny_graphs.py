"""Exported graphs of tiny models, each made once per process, and calls to feed them with."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from specbeam.engines.attention_mask import MASK_TYPES, dense_mask
from specbeam.graphs.files import save_graph
from tiny_models import make_model

ROWS, FIRST, PATH = 31, 10, 3  # of the vocabulary; the first that is a column; visible slots a token
TYPES = {"tensor(float)": "fp32", "tensor(float16)": "fp16"}


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tiny_graph(kind: str, precision: str = "fp32") -> Path:
    """The graph of a one-layer model; that of a Llama has a tied head."""
    from specbeam.engines.torch import DTYPES
    from specbeam.export.checkpoint import cast_parameters
    from specbeam.export.onnx import export_graph

    path = _folder() / f"{kind}-{precision}.onnx"
    model = make_model(kind, rows=ROWS, tied=kind == "llama", num_hidden_layers=1)
    cast_parameters(model, DTYPES[precision])
    export_graph(model, np.arange(FIRST, ROWS), path)
    return path


@dataclass(frozen=True)
class Call:
    """One call of a graph: who sees what, and everything else by name, in float32."""

    below: NDArray[np.int64]  # [B, T]
    slots: NDArray[np.int64]  # [B, T, L]
    past: int
    others: Mapping[str, NDArray[Any]]

    def feed(self, session: Any) -> dict[str, NDArray[Any]]:
        """What the session's inputs take, by either kind of mask."""
        types = {value.name: TYPES.get(value.type, "") for value in session.get_inputs()}
        feed = {name: self.others[name] for name in types if name in self.others}
        feed = {name: x.astype(MASK_TYPES[types[name]].dtype) if types[name] else x for name, x in feed.items()}
        if "attention_mask" not in types:
            return feed | {"visible_below": self.below, "visible_slots": self.slots}
        mask_type = MASK_TYPES[types["attention_mask"]]
        return feed | {"attention_mask": dense_mask(self.below, self.slots, self.past, mask_type)}


def make_call(below: NDArray[np.int64], slots: NDArray[np.int64], past: int, *, seed: int = 0) -> Call:
    """A call with random tokens and a random cache of the models of `tiny_graph`."""
    rng = np.random.default_rng(seed)
    batch, new = below.shape
    others: dict[str, NDArray[Any]] = {
        "input_ids": rng.integers(0, ROWS, (batch, new)),
        "position_ids": rng.integers(0, 60, (batch, new)),
        "logit_rows": rng.integers(0, new, (batch, 2)),
    }
    for part in ("key", "value"):
        others[f"past_key_values.0.{part}"] = rng.normal(size=(batch, 2, past, 8)).astype(np.float32)
    return Call(below, slots, past, others)


def random_call(batch: int, past: int, new: int) -> Call:
    """A call in which every token sees a random beginning and random other slots."""
    rng = np.random.default_rng(batch + past)
    below = rng.integers(1, past + new, (batch, new), endpoint=True)
    return make_call(below, rng.integers(-1, past + new, (batch, new, PATH)), past)


CALLS = [random_call(batch, past, 5) for batch in (1, 3) for past in (0, 7)]


def checked(model: ir.Model, path: Path) -> Path:
    """Save a graph, with the checks that every transformed one must pass."""
    save_graph(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)
    stored = [
        w.const_value.tobytes() for w in model.graph.initializers.values() if w.const_value and w.const_value.size > 8
    ]
    assert len(stored) == len(set(stored)), "a weight is stored twice"
    return path


def open_graph(path: Path) -> Any:
    """An ONNX Runtime session on the CPU, without the optimisations that would hide a difference."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(one: Any, two: Any, call: Call) -> float:
    """The largest difference between two sessions' outputs, relative to max(1, largest value of the first)."""
    pairs = zip(one.run(None, call.feed(one)), two.run(None, call.feed(two)), strict=True)
    found = 0.0
    for first, second in pairs:
        assert first.shape == second.shape
        scale = max(1.0, float(np.abs(first).max()))
        found = max(found, float(np.abs(first.astype(np.float32) - second.astype(np.float32)).max()) / scale)
    return found
