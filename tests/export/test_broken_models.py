"""Graphs that are wrong on purpose, each in one way in which exporters go wrong: found, and told what it looks like."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from architecture_cases import form, torch_forward
from specbeam.catalog.errors import ExportError
from specbeam.engines import attention as attending
from specbeam.engines.torch import GraphModule
from specbeam.export import parity
from specbeam.export.parity import compare_graph, expected_of

COLUMNS = np.arange(4, 28)


class Broken(GraphModule):
    """What is exported, with one fault."""

    fault = ""

    def forward(
        self, input_ids: Any, position_ids: Any, attention_mask: Any, logit_rows: Any, past: Any, slots: Any = None
    ) -> Any:
        if self.fault == "positions off by one":
            position_ids = (position_ids - 1).clamp(min=0)
        if self.fault == "positions that end":
            position_ids = position_ids.clamp(max=400)
        if self.fault == "positions by slot":
            cached = past[0].shape[2]
            position_ids = torch.arange(cached, cached + input_ids.shape[1]).expand_as(position_ids) % 60
        if self.fault == "siblings seen":
            cached, twins = past[0].shape[2], torch.zeros_like(attention_mask, dtype=torch.bool)
            same = position_ids[:, 1:, None] == position_ids[:, None, :-1]
            deep = position_ids[:, 1:, None] > position_ids.amax(1)[:, None, None] - 3
            twins[:, 0, 1:, cached:-1] = same & deep
            attention_mask = torch.where(twins, 0, attention_mask)
        if self.fault == "padding seen":
            attention_mask = attention_mask[:1].expand_as(attention_mask)
        if self.fault == "cache rounded":
            past = [tensor * 0.99 for tensor in past]
        return super().forward(input_ids, position_ids, attention_mask, logit_rows, past, slots)

    def _masks(self, mask: Any, positions: Any, slots: Any) -> Any:
        return mask if self.fault == "window ignored" else super()._masks(mask, positions, slots)


def found(
    monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel, fault: str = "", broken: PreTrainedModel | None = None
) -> str:
    """What the check says of a broken form of `model`, run by torch: what a trace of it would compute."""
    expected = expected_of(model, COLUMNS)
    monkeypatch.setattr(Broken, "fault", fault)
    module = Broken(broken or model, COLUMNS).eval()
    forward = torch_forward(module, expected.facts)
    monkeypatch.setattr(parity, "onnx_forward", lambda path: forward)
    try:
        compare_graph(Path(__file__), "fp32", expected)
    except ExportError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "settings", "fault", "says"),
    [
        ("Llama", {}, "positions off by one", "Right up to position 0, wrong from there on"),
        ("GPT-2", {}, "positions off by one", "Right up to position 0, wrong from there on"),
        ("GPT-2", {"max_position_embeddings": 512}, "positions that end", "end of the context .from position [45]"),
        ("OPT", {}, "positions by slot", "Wrong from the first token on"),
        ("Llama", {}, "siblings seen", "Right in whole sequences, wrong in the trees behind them"),
        ("Llama", {}, "padding seen", "Right in a batch of one, wrong beside prompts of other lengths"),
        ("Llama", {}, "cache rounded", "Right where all tokens come in one call, wrong where some are cached"),
        ("Mistral, window", {"sliding_window": 32}, "window ignored", "in long ones wrong from position 32 on"),
        ("Gemma 3 text", {"sliding_window": 40}, "window ignored", "in long ones wrong from position 40 on"),
        ("Mistral, window", {}, "window ignored", "Right up to position 11, wrong from there on"),
    ],
)  # fmt: skip
def test_what_is_broken_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], fault: str, says: str
) -> None:
    model = form(name).model(**settings)
    assert found(monkeypatch, model) == ""
    message = found(monkeypatch, model, fault)
    assert f"differs from the {type(model).__name__} it was made from" in message
    assert re.search(says, message), message


@pytest.mark.parametrize("name", ["Mixtral", "Starcoder2"])
def test_a_window_that_only_the_model_s_own_code_looks_at_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its layers are said to see everything, and their caches are those of such layers."""
    layers = ["full_attention", "full_attention"]
    model = form(name).model(sliding_window=300, layer_types=layers, max_position_embeddings=1024)
    assert re.search(r"Right in short sequences; in long ones wrong from position 3\d\d on", found(monkeypatch, model))


@pytest.mark.parametrize("dropped", ["softcap", "s_aux", "scaling"])
def test_what_attention_is_told_is_not_dropped(monkeypatch: pytest.MonkeyPatch, dropped: str) -> None:
    attention = attending.masked_attention

    def without(*tensors: Any, **settings: Any) -> Any:
        return attention(*tensors, **settings | {dropped: None})

    model = form({"softcap": "Gemma 2", "s_aux": "gpt-oss", "scaling": "Granite"}[dropped]).model()
    assert found(monkeypatch, model) == ""
    monkeypatch.setitem(attending.AttentionInterface._global_mapping, attending.ATTENTION, without)
    assert "differs from the" in found(monkeypatch, model)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Llama, Llama 3's RoPE", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
        ("Gemma 2", {"final_logit_softcapping": None}),
        ("Granite", {"logits_scaling": 1.0}),
        ("Qwen3-MoE", {"num_experts_per_tok": 1}),
        ("Cohere", {"logit_scale": 1.0}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_setting_that_is_dropped_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any]
) -> None:
    model, other = form(name).model(), form(name).model(**settings)
    assert "differs from the" in found(monkeypatch, model, broken=other)
