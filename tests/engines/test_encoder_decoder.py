"""Encoder-decoders: their graphs against the plain model, and both engines over them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import PreTrainedModel

from specbeam.catalog.errors import EngineError, ExportError
from specbeam.engines.base import Engine, Float32, ForwardInputs, Int64
from specbeam.engines.bundle.facts import ENCODER, ModelFacts
from specbeam.engines.cache import ReadCache
from specbeam.engines.decoder_facts import model_facts
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.reading import begin
from specbeam.engines.torch import DTYPES, load_model
from specbeam.engines.torch_encoder_decoder import load_torch_engine
from specbeam.export.checkpoint import cast_parameters
from specbeam.export.encoder_decoder import export_graphs
from specbeam.export.encoder_decoder_parity import check_parity
from tiny_models import WORDS, make_encoder_decoder, tiny_checkpoint

VOCABULARY = np.arange(4, 28)
ROWS = 31
START = WORDS.index("<pad>")
PROMPTS = [np.array([5, 9, 11, 3]), np.array([7]), np.arange(4, 27)]  # the last beyond the farthest distance
# Nodes behind the start token: two children of it, a child of each, and one of the first of these.
PARENTS = [-1, -1, 0, 1, 2]
TOKENS = [8, 9, 10, 11, 12]


class Made:
    """A model, its graphs and its checkpoint."""

    def __init__(self, folder: Path, kind: str, change: Callable[[PreTrainedModel], object] = id) -> None:
        self.folder = folder
        checkpoint = tiny_checkpoint(folder / "checkpoint", kind)
        self.model = load_model(checkpoint, torch.float32)
        change(self.model)
        self.model.save_pretrained(checkpoint)
        self.facts: ModelFacts = model_facts(self.model)
        export_graphs(self.model, VOCABULARY, self.graph)

    @property
    def graph(self) -> Path:
        return self.folder / "model.onnx"

    def engine(self, name: str) -> Engine:
        if name == "torch":
            checkpoint = self.folder / "checkpoint"
            return load_torch_engine(checkpoint, VOCABULARY, device="cpu", precision="fp32", threads=1)
        return load_ort_engine(self.graph, self.facts, device="cpu", precision="fp32", threads=1)

    def plain(self, prompt: Int64, decoded: list[int]) -> Float32:
        """[C] after a sequence that begins with the start token, by the plain model."""
        model: Any = load_model(self.folder / "checkpoint", torch.float32)
        with torch.inference_mode():
            ids = {"input_ids": torch.from_numpy(prompt)[None], "decoder_input_ids": torch.tensor([[START, *decoded]])}
            logprobs: Float32 = model(**ids).logits[0, -1].log_softmax(-1).numpy()[VOCABULARY]
        return logprobs


def untied(model: PreTrainedModel) -> None:
    """As T5 1.1 and mT5 are trained: a head of its own."""
    head = torch.nn.Linear(int(model.config.d_model), ROWS, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(5)))
    model.set_output_embeddings(head.requires_grad_(False))  # type: ignore[no-untyped-call]
    model.config.tie_word_embeddings = False


@pytest.fixture(scope="module", params=["t5", "mt5"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """T5 with a tied head, which scales; mT5 with one of its own."""
    folder, kind = tmp_path_factory.mktemp(request.param), request.param
    return Made(folder, kind, untied) if kind == "mt5" else Made(folder, kind)


def started(engine: Engine, prompts: list[Int64]) -> tuple[ReadCache, Float32]:
    """Prompts read, and what the start token says behind each [B, C]."""
    cache = engine.read(prompts)
    assert isinstance(cache, ReadCache)
    zero = np.zeros((len(prompts), 1), np.int64)
    slots = np.empty((len(prompts), 1, 0), np.int64)
    return cache, engine.forward(ForwardInputs(zero + START, zero, zero + 1, slots, zero), cache)[:, 0].copy()


def tree(batch: int, first: int, last: int, at: dict[int, int]) -> ForwardInputs:
    """The nodes from `first` to `last` of the tree, whose slots are `at`."""
    nodes, width = range(first, last), 3
    paths = np.full((len(nodes), width), -1)
    for row, node in enumerate(nodes):
        path = path_of(node)
        paths[row, : len(path)] = [at[step] for step in path]
    return ForwardInputs(
        np.tile(TOKENS[first:last], (batch, 1)),
        np.tile([len(path_of(node)) for node in nodes], (batch, 1)),
        np.ones((batch, len(nodes)), np.int64),
        np.tile(paths, (batch, 1, 1)),
        np.tile(np.arange(len(nodes)), (batch, 1)),
    )


def path_of(node: int) -> list[int]:
    return [node] if PARENTS[node] < 0 else [*path_of(PARENTS[node]), node]


def test_the_graphs_compute_what_the_model_does(made: Made) -> None:
    report = check_parity(made.graph, made.model, VOCABULARY, "fp32")
    assert {kind for _, kind in report.differences} == {"read", "logprobs", "present"}
    assert all(found.relative < 1e-4 for found in report.differences.values())


@pytest.mark.parametrize("wrong", ["distances", "padding", "head"])
def test_a_graph_that_computes_something_else_is_refused(made: Made, wrong: str, tmp_path: Path) -> None:
    for file in made.folder.glob("*.onnx*"):
        shutil.copy(file, tmp_path)
    name = "encoder.onnx" if wrong == "padding" else "model.onnx"
    graph = onnx.load(tmp_path / name)
    nodes = {node.op_type: node for node in graph.graph.node}
    if wrong == "distances":
        (table,) = (weight for weight in graph.graph.initializer if list(weight.dims) == [32, 4])
        farther = np.roll(onnx.numpy_helper.to_array(table), 1, axis=0)
        table.CopyFrom(onnx.numpy_helper.from_array(farther, table.name))
    elif wrong == "padding":  # it is seen
        where = nodes["Where"]
        where.input[2] = where.input[1]
    else:
        nodes["LogSoftmax"].op_type = "Softmax"
    onnx.save(graph, tmp_path / name)
    with pytest.raises(ExportError):
        check_parity(tmp_path / "model.onnx", made.model, VOCABULARY, "fp32")


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_tree_in_two_calls_is_what_plain_sequences_say(made: Made, name: str) -> None:
    engine = made.engine(name)
    assert (engine.start, engine.columns) == (START, len(VOCABULARY))
    cache, first = started(engine, PROMPTS)
    assert (cache.batch, cache.length, cache.read) == (3, 1, 23)
    at = {node: 1 + node for node in range(len(PARENTS))}
    found = [engine.forward(tree(3, *part, at), cache).copy() for part in ((0, 3), (3, 5))]
    assert cache.length == 6
    logprobs = np.concatenate([first[:, None], *found], axis=1)
    decoded = [[], *([TOKENS[step] for step in path_of(node)] for node in range(len(PARENTS)))]
    expected = [[made.plain(prompt, tokens) for tokens in decoded] for prompt in PROMPTS]
    np.testing.assert_allclose(logprobs, expected, atol=1e-4)
    assert np.ptp(logprobs, axis=0).max() > 0.1  # prompts matter


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_rows_and_slots_that_are_kept_and_joined(made: Made, name: str) -> None:
    engine = made.engine(name)
    one, _ = started(engine, PROMPTS[:2])
    other, _ = started(engine, PROMPTS[2:])
    at = {node: 1 + node for node in range(len(PARENTS))}
    for cache in (one, other):
        engine.forward(tree(cache.batch, 0, 3, at), cache)
    before = one.copy()
    one.keep(np.array([1]), np.array([[0, 1, 3]]))  # the start token, the first node, and its child
    one.join(other)
    assert (one.batch, one.length, one.read, before.batch, other.batch) == (2, 4, 23, 2, 1)
    inputs = tree(2, 4, 5, at | {4: 4})
    inputs.visible_slots[0, 0] = [1, 2, 4]  # where the first row's nodes are now
    got = engine.forward(inputs, one)[:, 0]
    expected = [made.plain(prompt, [TOKENS[node] for node in path_of(4)]) for prompt in PROMPTS[1:]]
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "precision"), [("mt5", "bf16"), ("t5", "fp16")])
def test_half_precision(kind: str, precision: str, tmp_path: Path) -> None:
    """Lifted to fp32, the graphs differ by no more than those in fp32: nothing of them is rounded but weights."""
    model = make_encoder_decoder(kind, rows=ROWS, num_layers=1, num_decoder_layers=1).requires_grad_(False)
    cast_parameters(model, DTYPES[precision])
    export_graphs(model, VOCABULARY, tmp_path / "model.onnx")
    report = check_parity(tmp_path / "model.onnx", model, VOCABULARY, precision)
    assert {run for run, _ in report.differences} == {"fp32"} | ({precision} - {"bf16"})


def test_what_manifests_say_of_it() -> None:
    facts = model_facts(make_encoder_decoder("t5", rows=ROWS))
    assert (facts.layers, facts.kv_heads, facts.head_dim, facts.vocabulary, facts.context) == (2, 4, 8, ROWS, 128)
    assert facts.slot_positions
    assert facts.encoder is not None
    assert (facts.encoder.layers, facts.encoder.start) == (3, START)
    assert model_facts(make_encoder_decoder("mt5", rows=ROWS, n_positions=None)).context == 512


def test_a_prompt_begins_with_what_reads_it(made: Made) -> None:
    prompts = np.stack([np.arange(4, 10), np.arange(10, 16)])
    begun = begin(made.engine("onnxruntime"), prompts)
    assert (begun.slots, begun.cache.read, begun.logprobs.shape) == (1, 6, (2, 1, len(VOCABULARY)))
    np.testing.assert_allclose(begun.logprobs[:, 0], [made.plain(prompt, []) for prompt in prompts], atol=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_cache_begins_with_prompts(made: Made, name: str) -> None:
    with pytest.raises(EngineError, match="has an encoder: its caches begin with prompts"):
        made.engine(name).new_cache(1)


def test_graphs_of_another_model_are_refused(made: Made, tmp_path: Path) -> None:
    shutil.copy(made.graph, tmp_path)
    shutil.copy(made.graph, tmp_path / ENCODER)
    with pytest.raises(EngineError, match=r"encoder\.onnx is no graph of this model: the input .* is not expected"):
        load_ort_engine(tmp_path / "model.onnx", made.facts, device="cpu", precision="fp32", threads=1)
    (tmp_path / ENCODER).unlink()
    with pytest.raises(EngineError, match="cannot load"):
        load_ort_engine(tmp_path / "model.onnx", made.facts, device="cpu", precision="fp32", threads=1)
