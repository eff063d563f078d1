"""Both graphs of an encoder-decoder: recorded, measured, smoothed and quantized."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from calib_cases import logprobs
from specbeam.calib.calls import Calls, Recorder, replay
from specbeam.calib.graphs import graphs_of
from specbeam.calib.matmuls import activations, weighted_matmuls
from specbeam.calib.observe import EncoderObserver, Observer
from specbeam.calib.quantize import Method, quantize
from specbeam.calib.ranges import Ranges, compute_ranges
from specbeam.calib.sensitivity import exclusions, mean_divergence, node_groups, sensitivity
from specbeam.calib.smooth import smooth
from specbeam.calib.trials import timed
from specbeam.engines.base import Engine, Int64
from specbeam.engines.bundle.facts import ENCODER
from specbeam.engines.cache import KVCache
from specbeam.engines.decoder_facts import model_facts
from specbeam.engines.latency import call
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.reading import begin
from specbeam.export.encoder_decoder import export_graphs
from specbeam.graphs.files import load_graph, save_graph
from tiny_models import make_model

ROWS, FIRST = 31, 10


class Made:
    """The graphs of a tiny T5, whose MLPs have a ReLU, an engine over them, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        model = make_model("t5", rows=ROWS)
        self.facts, self.graph = model_facts(model), folder / "model.onnx"
        export_graphs(model, np.arange(FIRST, ROWS), self.graph)
        self.encoder = folder / ENCODER
        recorder = Recorder(self.engine(self.graph))
        rng = np.random.default_rng(0)
        for length in range(3, 9):
            begun = begin(recorder, rng.integers(0, ROWS, (1, length)))
            recorder.forward(call(rng.integers(0, ROWS, (1, 4)), begun.slots, begun.cache, 4), begun.cache)
        self.calls: Calls = recorder.calls(0)

    def engine(self, graph: Path) -> Engine:
        return load_ort_engine(graph, self.facts, device="cpu", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def ranges(made: Made) -> Ranges:
    return compute_ranges(made.graph, made.calls, source_sha256="x")


def test_prompts_are_recorded_with_what_is_decoded_behind_them(made: Made) -> None:
    assert [len(prompt) for prompt in made.calls.prompts] == list(range(3, 9))
    assert [len(search) for search in made.calls.searches] == [2] * 6
    assert [len(prompt) for prompt in made.calls.some(3).prompts] == [3, 5, 8]
    observed = Observer(made.graph, ["logprobs"], threads=1, encoder=made.encoder).run(made.calls)
    for (expected,), got in zip(observed, replay(made.engine(made.graph), made.calls), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_first_call_of_a_search_is_timed_with_its_prompt_s_reading(made: Made) -> None:
    class Slow(Recorder):
        """Reads for 20 ms."""

        def read(self, prompts: Sequence[Int64]) -> KVCache:
            sleep(0.02)
            return super().read(prompts)

    times = timed(Slow(made.engine(made.graph)), "target", made.calls.some(2))
    assert times["prefill+verify"] >= 20 > times["verify"]


def test_parts_are_layers_of_both_and_heads(made: Made) -> None:
    decoder, encoder = (Counter(node_groups(load_graph(graph)).values()) for graph in graphs_of(made.graph))
    assert decoder == {"layers.0": 8, "layers.1": 8, "head": 1}
    assert encoder == {f"encoder.layers.{layer}": 6 for layer in range(3)} | {"encoder.read": 4}


def test_ranges_cover_what_both_multiply(made: Made, ranges: Ranges) -> None:
    assert ranges.calls == 12
    for graph in graphs_of(made.graph):
        own, names = ranges.of(graph), activations(load_graph(graph))
        assert list(own.tensors) == names == list(own.channels)
        assert ranges.merged(graph, own) == ranges
    names = activations(load_graph(made.encoder))
    lows = dict.fromkeys(names, 0.0)
    for values in EncoderObserver(made.encoder, names, threads=1).run(made.calls):
        lows |= {name: min(lows[name], float(value.min())) for name, value in zip(names, values, strict=True)}
    assert {name: low for name, (low, _) in ranges.of(made.encoder).tensors.items()} == pytest.approx(lows)


def test_smoothing_changes_nothing_but_ranges(made: Made, ranges: Ranges, tmp_path: Path) -> None:
    smoothed = ranges
    for graph in graphs_of(made.graph):
        model = load_graph(graph)
        own = smooth(model, ranges.of(graph), alpha=0.5)
        changed = [name for name, found in own.tensors.items() if found != ranges.of(graph).tensors[name]]
        # Before q, k, v, before the MLP and inside it, and before what is read; a decoder's before reading's q.
        assert len(changed) == (3 * 3 + 1 if graph.name == ENCODER else 2 * 4)
        smoothed = smoothed.merged(graph, own)
        save_graph(model, tmp_path / graph.name)
    assert smoothed != ranges
    expected = [rows.copy() for rows in replay(made.engine(made.graph), made.calls)]
    got = [rows.copy() for rows in replay(made.engine(tmp_path / "model.onnx"), made.calls)]
    for one, two in zip(expected, got, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-4)
    again = compute_ranges(tmp_path / "model.onnx", made.calls, source_sha256="x")
    for name, (low, high) in smoothed.tensors.items():
        assert max(-again.tensors[name][0], again.tensors[name][1]) == pytest.approx(max(-low, high), rel=1e-3)


@pytest.mark.parametrize("method", ["static", "dynamic", "weight8", "weight4"])
def test_quantized_graphs_stay_near(made: Made, ranges: Ranges, method: Method, tmp_path: Path) -> None:
    for graph in graphs_of(made.graph):
        quantize(graph, tmp_path / graph.name, method, ranges=ranges.of(graph) if method == "static" else None)
        kept = [str(node.name) for node in weighted_matmuls(load_graph(tmp_path / graph.name))]
        assert not set(kept) & set(node_groups(load_graph(graph)))
    expected = [rows.copy() for rows in replay(made.engine(made.graph), made.calls)]
    got = [rows.copy() for rows in replay(made.engine(tmp_path / "model.onnx"), made.calls)]
    assert 0 < mean_divergence([*expected], [*got]) < 0.2


def test_what_suffers_is_told_of_both(made: Made) -> None:
    found = sensitivity(made.graph, made.calls, "weight4", searches=3)
    parts = ["layers.0", "layers.1", "head", *(f"encoder.layers.{layer}" for layer in range(3)), "encoder.read"]
    assert list(found) == parts
    assert all(divergence > 0 for divergence in found.values())
    decoder, encoder = (load_graph(graph) for graph in graphs_of(made.graph))
    assert exclusions(decoder, ["encoder.read"]) == []
    assert len(exclusions(encoder, ["encoder.read", "head"])) == 4


def test_a_decoder_alone_reads_nothing(made: Made, tmp_path: Path) -> None:
    assert graphs_of(tmp_path / "model.onnx") == [tmp_path / "model.onnx"]
    with pytest.raises(AssertionError):
        logprobs(made.graph, made.calls)  # observed without its encoder
