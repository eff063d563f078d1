"""A float32 graph run over recorded calls, some of the values inside it watched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from ..engines.attention_mask import MASK_TYPES, dense_feed
from ..engines.base import ForwardInputs, Int64
from ..engines.bundle.facts import ENCODER
from ..engines.onnxruntime.cpu import session_options
from ..graphs.files import load_graph
from .calls import Arrays, Calls
from .graphs import READ, graphs_of

PAST, PRESENT = "past_key_values.", "present."
FLOAT = MASK_TYPES["fp32"]
Array = NDArray[Any]


@dataclass
class Cached:
    """What one search's calls have left."""

    past: Arrays  # key, value of every layer
    read: dict[str, Array]  # what an encoder has made of the prompt, by the name of the input; nothing where none is

    def copy(self) -> "Cached":
        return Cached(list(self.past), self.read)


class EncoderObserver:
    """An exported float32 graph that reads prompts, of which any values can be asked for."""

    def __init__(self, graph: Path, watched: Sequence[str], *, threads: int) -> None:
        """As of `Observer`."""
        self._session = _session(graph, watched, threads)
        given = [value.name for value in self._session.get_outputs() if value.name.startswith(READ)]
        self._watched, self._given = list(watched), given

    def run(self, calls: Calls) -> Iterator[Arrays]:
        """The watched values of every prompt, in order."""
        for prompt in calls.prompts:
            yield self._session.run(self._watched, _prompt_feed(prompt))

    def read(self, prompt: Int64) -> dict[str, Array]:
        """What a decoder is fed of a prompt [P]."""
        feed = _prompt_feed(prompt)
        given = self._session.run(self._given, feed)
        return {"prompt_lengths": feed["prompt_lengths"], **dict(zip(self._given, given, strict=True))}


class Observer:
    """An exported float32 graph that decodes, of which any values can be asked for.

    A call's keys and values come from the calls before it: memory holds those of one search.
    """

    def __init__(self, graph: Path, watched: Sequence[str], *, threads: int, encoder: Path | None = None) -> None:
        """watched: names of values in the graph; encoder: what reads its prompts, where it does not decode them.

        Raises `EngineError` where ONNX Runtime cannot run it.
        """
        self._session = _session(graph, watched, threads)
        self._encoder = None if encoder is None else EncoderObserver(encoder, [], threads=threads)
        inputs = self._session.get_inputs()
        self._past = [value for value in inputs if value.name.startswith(PAST)]
        self._positions = any(value.name == "slot_positions" for value in inputs)
        names = [value.name.replace(PAST, PRESENT, 1) for value in self._past]
        self._watched, self._outputs = len(watched), [*watched, *names]

    def run(self, calls: Calls) -> Iterator[Arrays]:
        """The watched values of every call, in order."""
        for inputs, cached, _ in calls.walk(self._begun):
            seen, cached.past = self._forward(inputs, cached)
            yield seen

    def _begun(self, prompt: Int64 | None) -> Cached:
        empty: Arrays = [np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in self._past]
        if prompt is None:
            return Cached(empty, {})
        assert self._encoder is not None
        return Cached(empty, self._encoder.read(prompt))

    def _forward(self, inputs: ForwardInputs, cached: Cached) -> tuple[Arrays, Arrays]:
        feed = dense_feed(inputs, cached.past[0].shape[2], FLOAT, positions=self._positions)
        feed |= {value.name: array for value, array in zip(self._past, cached.past, strict=True)} | cached.read
        values: Arrays = self._session.run(self._outputs, feed)
        return values[: self._watched], values[self._watched :]


def observer_of(graph: Path, watched: Sequence[str], *, threads: int) -> Observer | EncoderObserver:
    """Of a graph that decodes, with the encoder beside it if it has one; or of such an encoder."""
    if graph.name == ENCODER:
        return EncoderObserver(graph, watched, threads=threads)
    return Observer(graph, watched, threads=threads, encoder=next(iter(graphs_of(graph)[1:]), None))


def _prompt_feed(prompt: Int64) -> dict[str, Array]:
    return {"input_ids": prompt[None], "prompt_lengths": np.array([len(prompt)])}


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
