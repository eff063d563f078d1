"""A float32 graph run over recorded calls, some of the values inside it watched."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort  # type: ignore[import-untyped]

from ..catalog.errors import EngineError
from ..engines.attention_mask import MASK_TYPES, dense_feed
from ..engines.base import ForwardInputs
from ..engines.onnxruntime.cpu import session_options
from ..graphs.files import load_graph
from .calls import Arrays, Calls

PAST, PRESENT = "past_key_values.", "present."
FLOAT = MASK_TYPES["fp32"]


class Observer:
    """An exported float32 graph, of which any values can be asked for.

    A call's keys and values come from the calls before it: memory holds those of one search.
    """

    def __init__(self, graph: Path, watched: Sequence[str], *, threads: int) -> None:
        """watched: names of values in the graph. Raises `EngineError` where ONNX Runtime cannot run it."""
        self._session = _session(graph, watched, threads)
        inputs = self._session.get_inputs()
        self._past = [value for value in inputs if value.name.startswith(PAST)]
        self._positions = any(value.name == "slot_positions" for value in inputs)
        names = [value.name.replace(PAST, PRESENT, 1) for value in self._past]
        self._watched, self._outputs = len(watched), [*watched, *names]

    def run(self, calls: Calls) -> Iterator[Arrays]:
        """The watched values of every call, in order."""
        empty: Arrays = [np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in self._past]
        for inputs, past, _ in calls.walk(empty):
            seen, past[:] = self._forward(inputs, past)
            yield seen

    def _forward(self, inputs: ForwardInputs, past: Arrays) -> tuple[Arrays, Arrays]:
        feed = dense_feed(inputs, past[0].shape[2], FLOAT, positions=self._positions)
        feed |= {value.name: array for value, array in zip(self._past, past, strict=True)}
        values: Arrays = self._session.run(self._outputs, feed)
        return values[: self._watched], values[self._watched :]


def _session(graph: Path, watched: Sequence[str], threads: int) -> ort.InferenceSession:
    """The graph with more outputs, its external weights read from where they are."""
    model = load_graph(graph)
    values = {value.name: value for node in model.graph for value in node.outputs}
    known = {value.name for value in model.graph.outputs}
    model.graph.outputs.extend(values[name] for name in watched if name not in known)
    options = session_options(threads)
    # Where weights alone are integers, its kernels round the activations as well unless told not to.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    try:
        serialized = ir.to_proto(model).SerializeToString()
        return ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EngineError(f"ONNX Runtime {ort.__version__} cannot run {graph} for calibration: {error}") from error
