"""The reference engine against the plain Hugging Face model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from join_cases import check_join
from specbeam.catalog.errors import EngineError
from specbeam.engines.base import ForwardInputs, causal
from specbeam.engines.torch_encoder_decoder import load_torch_engine
from tiny_models import KINDS, tiny_checkpoint

VOCABULARY = np.arange(10, 28)
# A prompt of four tokens, then a tree: slots 4 and 5 continue the prompt, 6 and 7 continue 4, 8 continues 5.
PARENTS = [-1, 0, 1, 2, 3, 3, 4, 4, 5]


def tree(tokens: NDArray[np.int64]) -> tuple[list[list[int]], NDArray[np.bool_]]:
    """Each slot's path, and who sees whom."""
    paths = [[slot] if PARENTS[slot] < 0 else [] for slot in range(len(PARENTS))]
    for slot in range(1, len(PARENTS)):
        paths[slot] = [*paths[PARENTS[slot]], slot]
    sees = np.zeros((len(PARENTS), len(PARENTS)), bool)
    for slot, path in enumerate(paths):
        sees[slot, path] = True
    return paths, sees


def inputs(tokens: NDArray[np.int64], start: int, stop: int, rows: list[int]) -> ForwardInputs:
    paths, _ = tree(tokens)
    batch = len(tokens)
    slots = np.full((stop - start, len(PARENTS)), -1)
    for token, path in enumerate(paths[start:stop]):
        slots[token, : len(path)] = path
    return ForwardInputs(
        tokens[:, start:stop],
        np.tile([len(path) - 1 for path in paths[start:stop]], (batch, 1)),
        np.zeros((batch, stop - start), np.int64),
        np.tile(slots, (batch, 1, 1)),
        np.tile(rows, (batch, 1)),
    )


def expected(model: PreTrainedModel, tokens: NDArray[np.int64], slots: list[int]) -> NDArray[np.float32]:
    """[B, len(slots), C] by one ordinary call a path."""
    paths, _ = tree(tokens)
    with torch.inference_mode():
        rows = [
            [model(torch.from_numpy(row[paths[slot]])[None]).logits[0, -1].float().log_softmax(-1) for slot in slots]
            for row in tokens
        ]
    return torch.stack([torch.stack(row) for row in rows]).numpy()[..., VOCABULARY]


@pytest.fixture
def tokens() -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(3, 28, (3, len(PARENTS)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_in_two_calls(tmp_path: Path, tokens: NDArray[np.int64], kind: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path, kind, tied=kind == "qwen2")
    engine = load_torch_engine(checkpoint, VOCABULARY, device="cpu", precision="fp32", threads=1)
    cache = engine.new_cache(3)
    assert (cache.batch, cache.length, engine.columns) == (3, 0, 18)
    first = engine.forward(inputs(tokens, 0, 5, [3, 4]), cache)
    assert cache.length == 5
    second = engine.forward(inputs(tokens, 5, 9, [3, 0, 0]), cache)
    assert cache.length == 9
    assert first.dtype == second.dtype == np.float32
    got = np.concatenate([first, second], axis=1)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager")
    np.testing.assert_allclose(got, expected(model, tokens, [3, 4, 8, 5, 5]), atol=1e-4)


def test_keep_closes_holes_and_reorders_rows(tmp_path: Path, tokens: NDArray[np.int64]) -> None:
    engine = load_torch_engine(tiny_checkpoint(tmp_path), VOCABULARY, device="cpu", precision="fp32", threads=1)
    cache = engine.new_cache(3)
    engine.forward(inputs(tokens, 0, 8, [7]), cache)
    rows = np.array([2, 0])
    path = np.array([0, 1, 2, 3, 5])  # the parent of slot 8
    cache.keep(rows, np.stack([path, path]))
    assert (cache.batch, cache.length) == (2, 5)
    cache.keep(np.array([1, 0, 1]))  # whole rows: 0, 2, 0 of the tokens
    cache.keep(np.array([1, 0]))  # and back
    assert (cache.batch, cache.length) == (2, 5)
    call = ForwardInputs(tokens[rows, 8:], np.full((2, 1), 5), *causal(5, 1, 2), np.zeros((2, 1), np.int64))
    got = engine.forward(call, cache)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    np.testing.assert_allclose(got, expected(model, tokens[rows], [8]), atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.05), ("bf16", 0.5)])
def test_half_precision(tmp_path: Path, tokens: NDArray[np.int64], precision: str, tolerance: float) -> None:
    engine = load_torch_engine(tiny_checkpoint(tmp_path), VOCABULARY, device="cpu", precision=precision, threads=1)
    cache = engine.new_cache(3)
    got = engine.forward(inputs(tokens, 0, 9, [7, 8]), cache)
    assert {tensor.dtype for tensor in cache.tensors} == {{"fp16": torch.float16, "bf16": torch.bfloat16}[precision]}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    wanted = expected(model, tokens, [7, 8])
    assert np.abs(got - wanted).max() < tolerance
    assert np.abs(wanted - expected(model, tokens, [6, 7])).max() > 2 * tolerance  # another row would not pass


def test_threads_are_given_back(tmp_path: Path, tokens: NDArray[np.int64]) -> None:
    before = torch.get_num_threads()
    checkpoint = tiny_checkpoint(tmp_path)
    engine = load_torch_engine(checkpoint, VOCABULARY, device="cpu", precision="fp32", threads=before + 1)
    during = []
    engine._graph.register_forward_hook(lambda *_: during.append(torch.get_num_threads()))
    engine.forward(inputs(tokens, 0, 9, [8]), engine.new_cache(3))
    assert during == [before + 1]
    assert torch.get_num_threads() == before


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="holds no checkpoint"):
        load_torch_engine(tmp_path, VOCABULARY, device="cpu", precision="fp32", threads=0)
    tiny_checkpoint(tmp_path)
    with pytest.raises(EngineError, match="fp32, fp16, bf16; got precision 'int8'"):
        load_torch_engine(tmp_path, VOCABULARY, device="cpu", precision="int8", threads=0)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(EngineError, match=r"holds no weights; expected model\.safetensors"):
        load_torch_engine(tmp_path, VOCABULARY, device="cpu", precision="fp32", threads=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no CUDA device"):
        load_torch_engine(tiny_checkpoint(tmp_path), VOCABULARY, device="cuda", precision="fp32", threads=0)


def test_caches_join(tmp_path: Path) -> None:
    check_join(load_torch_engine(tiny_checkpoint(tmp_path), VOCABULARY, device="cpu", precision="fp32", threads=1))
