"""What compile.py compiles: small models of every architecture and shape, exported, and limits of their calls."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers

from specbeam.calib.quantize import quantize
from specbeam.engines.bundle.facts import EnginePrecision, Limits, ModelFacts, Precision, Role
from specbeam.engines.prepare import prepare_graph
from specbeam.engines.tensorrt.backend import TensorRTBackend
from specbeam.engines.tensorrt.flavour import RTX
from specbeam.export.onnx import export_graph

LENGTH, ROWS = 4, 200
ARCHITECTURES = {"Llama": {}, "Qwen2": {}, "Qwen3": {}, "Mistral": {"sliding_window": None}}
LIMITS = Limits(max_batch=8, max_prompt=80, max_nodes=256, path=LENGTH)
HEADS = (8, 12, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 120, 128, 160, 192, 224, 256)
GROUPS = ((1, 1), (2, 1), (4, 4), (6, 3), (7, 1), (8, 1), (14, 2), (16, 8), (28, 4), (32, 8))


@dataclass(frozen=True)
class Case:
    """A model, and the calls that it is compiled for."""

    architecture: str = "Llama"
    head_dim: int = 64
    heads: tuple[int, int] = (4, 2)  # of queries, of keys and values
    layers: int = 2
    hidden: int = 64
    intermediate: int = 128
    rows: int = ROWS
    settings: tuple[tuple[str, Any], ...] = ()  # of the configuration, besides
    opset: int = 23
    role: Role = "target"
    limits: Limits = field(default=LIMITS)
    what: str = ""  # in words

    def facts(self) -> ModelFacts:
        return ModelFacts(
            architecture=f"{self.architecture}ForCausalLM", parameters=0, layers=self.layers, kv_heads=self.heads[1],
            head_dim=self.head_dim, vocabulary=self.rows, context=32768,
        )  # fmt: skip

    def model(self) -> transformers.PreTrainedModel:
        """Random weights."""
        hidden = self.hidden + -self.hidden % self.heads[0]  # transformers want a multiple of the heads
        config = getattr(transformers, f"{self.architecture}Config")(
            vocab_size=self.rows, hidden_size=hidden, intermediate_size=self.intermediate, head_dim=self.head_dim,
            num_hidden_layers=self.layers, num_attention_heads=self.heads[0], num_key_value_heads=self.heads[1],
            max_position_embeddings=32768, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            **(ARCHITECTURES[self.architecture] | dict(self.settings)),
        )  # fmt: skip
        torch.manual_seed(0)
        made: transformers.PreTrainedModel = getattr(transformers, f"{self.architecture}ForCausalLM")(config).eval()
        return made

    def exported(self, folder: Path) -> Path:
        """Its graph, made once."""
        alike = replace(self, role="target", limits=LIMITS, what="")
        path = folder / sha256(repr(alike).encode()).hexdigest()[:12] / "model.onnx"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with mock.patch("specbeam.export.onnx.OPSET", self.opset):
                export_graph(self.model(), np.arange(10, self.rows), path)
        return path

    def prepared(self, folder: Path, precision: EnginePrecision, method: str | None, scratch: Path) -> Path:
        """Its graph as the compiler gets it; method: of the integers that are turned into floating point."""
        source = self.exported(folder)
        if method is not None:
            quantize(source, scratch / "integers.onnx", method, weights="dequantize")  # type: ignore[arg-type]
            source = scratch / "integers.onnx"
        return prepare_graph(
            source, scratch / "prepared" / "model.onnx", exported="fp32", wanted=cache_of(precision),
            mask_slots=self.limits.path, decomposed=True,
        )  # fmt: skip


def cache_of(precision: EnginePrecision) -> Precision:
    """The type that a graph computes in."""
    return TensorRTBackend("cuda", flavour=RTX).cache(precision, "fp32")


def matrix() -> Iterator[Case]:
    """Every architecture, target and draft."""
    for architecture in ARCHITECTURES:
        yield Case(architecture, what=architecture)
        yield Case(architecture, layers=1, role="draft", what=architecture)


def sweep() -> Iterator[Case]:
    """Shapes of heads, forms of attention, opsets, depths, and calls at their extremes."""
    yield from (Case(head_dim=size, what=f"head size {size}") for size in HEADS)
    yield from (Case(heads=pair, what=f"{pair[0]} heads of queries, {pair[1]} of keys") for pair in GROUPS)
    yield Case(settings=(("attention_bias", True),), what="biases of attention and MLP")
    yield Case("Qwen2", what="biases of queries, keys and values")
    yield Case("Qwen3", what="norms of queries and keys")
    yield Case(opset=24, what="opset 24")
    yield from (Case(layers=layers, what=f"{layers} layers") for layers in (1, 8, 32))
    for batch, prompt, nodes in ((1, 1, 1), (1, 1, 256), (512, 8, 1), (1, 16000, 1), (64, 1000, 512), (1, 80, 4096)):
        limits = Limits(max_batch=batch, max_prompt=prompt, max_nodes=nodes, path=LENGTH)
        yield Case(limits=limits, what=f"{batch} requests, prompts of {prompt}, {nodes} nodes")
    yield Case(limits=Limits(max_batch=8, max_prompt=80, max_nodes=256, path=16), what="identifiers of 16 tokens")


SIZES = {
    "110 M": Case(
        head_dim=64, heads=(12, 12), layers=12, hidden=768, intermediate=2048, rows=32000, what="a Llama of 110 M"
    ),
    "1 B": Case(
        head_dim=64,
        heads=(32, 8),
        layers=16,
        hidden=2048,
        intermediate=8192,
        rows=32000,
        what="the shape of Llama 3.2 1B",
    ),
}
