"""What needs a CUDA device, and what is written for one, as far as a CPU can show it."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.hardware import gpu
from benchmarks.shared import as_ranked
from device_engines import built
from specbeam.engines.attention import folded_attention
from specbeam.engines.base import Engine
from specbeam.engines.bundle.facts import Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.torch import uploaded
from specbeam.engines.torch_encoder_decoder import load_torch_engine
from specbeam.runtime import DraftShape, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from tiny_bundle import Tiny

ROLES: tuple[Role, ...] = ("target", "draft")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
needs_cuda_provider = pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="onnxruntime-gpu is not installed"
)


@given(seed=st.integers(0, 10**6), groups=st.sampled_from([1, 2, 4]), new=st.integers(1, 5), past=st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_folded_attention_is_grouped_attention(seed: int, groups: int, new: int, past: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 4, new, 8, generator=generator)
    key, value = torch.randn(2, 2, groups, past + new, 8, generator=generator)
    hidden = torch.rand(2, 1, new, past + new, generator=generator) < 0.5
    hidden[..., 0] = False
    mask = torch.where(hidden, torch.finfo(torch.float32).min, 0.0)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(folded_attention(query, key, value, mask, 0.3), expected)


def test_arrays_arrive_in_one_copy() -> None:
    arrays = [np.arange(6).reshape(2, 3), np.empty((2, 3, 0), np.int64), np.array([[7]])]
    tensors = uploaded(arrays, torch.device("cpu"))
    assert [tensor.tolist() for tensor in tensors] == [array.tolist() for array in arrays]
    assert [tuple(tensor.shape) for tensor in tensors] == [array.shape for array in arrays]


def lists(bundle: Bundle, engines: dict[Role, Engine], batch: int) -> list[list[tuple[tuple[str, ...], float]]]:
    trie = bundle.trie()
    loaded = Loaded(bundle.catalog(), trie, bundle.prompts(trie), engines["target"], engines["draft"])
    recommender = Recommender(loaded, planning=FixedPlanning(DraftShape(6, 2)), batching=batch)
    histories = [[str(i) for i in range(start, start + 1 + start % 6)] for start in range(0, 30, 3)]
    return [as_ranked(result) for _ in range(3) for result in recommender.recommend(histories, 5)]


def on_cpu(bundle: Bundle) -> dict[Role, Engine]:
    return {
        role: load_ort_engine(bundle.graph(role), bundle.facts(role), device="cpu", precision="fp32", threads=1)
        for role in ROLES
    }


def same(got: list[list[tuple[tuple[str, ...], float]]], expected: list[list[tuple[tuple[str, ...], float]]]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert [identifier for identifier, _ in one] == [identifier for identifier, _ in other]
        np.testing.assert_allclose([score for _, score in one], [score for _, score in other], atol=1e-3)


@pytest.mark.gpu
@needs_cuda_provider
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_onnxruntime_on_cuda_finds_the_lists_of_the_cpu(tiny: Tiny, tmp_path: Path, graphs: bool, batch: int) -> None:
    bundle = Bundle.open(tiny.bundle)
    engines: dict[Role, Engine] = {
        role: built(bundle, role, tmp_path / role, device="cuda", graphs=graphs) for role in ROLES
    }
    same(lists(bundle, engines, batch), lists(bundle, on_cpu(bundle), batch))
    if graphs:
        assert all(engine._model._capturing and engine._model._graphs for engine in engines.values())


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("batch", [1, 4])
def test_torch_on_cuda_finds_the_lists_of_the_cpu(tiny: Tiny, batch: int) -> None:
    bundle = Bundle.open(tiny.bundle)
    vocabulary = bundle.trie().vocabulary
    engines: dict[Role, Engine] = {
        role: load_torch_engine(
            bundle.folder(f"{role}/checkpoint"), vocabulary, device="cuda", precision="fp32", threads=0
        )
        for role in ROLES
    }
    same(lists(bundle, engines, batch), lists(bundle, on_cpu(bundle), batch))


def test_the_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the CPU, at the smallest sizes: the forced luck is what happens."""
    output = tmp_path / "gpu.json"
    options = (
        "--device cpu --precision fp32 --targets tiny --draft tiny-draft --parts search,parity --batches 2 --top-k 3 "
        "--width 6 --prompt 10 --items 400 --codes 8 --lists 2 --repeats 1 --bandwidth 10"
    )
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options.split(), "--output", str(output)])
    gpu.main()
    result = json.loads(output.read_text())
    calls = {row["variant"]: row["target_calls"] for row in result["search, torch"]}
    assert calls == {"plain": 4, "accept 0": 4, "accept 1": 2, "accept 2": 2, "accept 3": 1}
    assert [row["faults"] for row in result["parity, torch"]] == [0]
    assert "times as fast" in capsys.readouterr().out
