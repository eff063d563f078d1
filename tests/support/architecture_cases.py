"""Tiny random decoders of many architectures, and what export is expected to do with each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from benchmarks.shared import TrieGenerate, as_ranked, leaf_identifiers, ranking_fault
from specbeam.engines.bundle.facts import ModelFacts
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.torch import GraphModule
from specbeam.export import model as exporting
from specbeam.export import parity
from specbeam.runtime import EngineChoice, Recommender
from tiny_models import identifier_tokens, make_tokenizer

WINDOW = 12  # positions, fewer than a prompt has
CONTEXT = 64
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": CONTEXT,
}  # fmt: skip
OLD = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": CONTEXT}
TOKENS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}


@dataclass(frozen=True)
class Form:
    """One architecture in one form."""

    name: str
    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    refused: str = ""  # a pattern of why; empty: it is exported

    def model(self, *, seed: int = 0, **settings: Any) -> PreTrainedModel:
        """Random weights, with predictions far from uniform; for the tokenizer of `tiny_models`."""
        rows = len(make_tokenizer(identifier_tokens())) + 4
        chosen = {**self.sizes, **TOKENS, "vocab_size": rows, "initializer_range": 0.3, **self.settings}
        config = AutoConfig.for_model(self.model_type, **{**chosen, **settings})
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
            for name, weight in model.named_parameters():
                if name.endswith("bias") or "sinks" in name:
                    weight.normal_(0, 0.3)
                elif "norm" in name or "ln_" in name:
                    weight.uniform_(0.5, 1.5)
                elif weight.ndim > 1:
                    weight.normal_(0, 0.3)
        return model.requires_grad_(False)

    def save(self, directory: Path, *, seed: int = 0, **settings: Any) -> Path:
        """A checkpoint of `model` with its tokenizer."""
        self.model(seed=seed, **settings).save_pretrained(directory)
        make_tokenizer(identifier_tokens()).save_pretrained(directory)
        return directory


FORMS = (
    Form("Llama", "llama"),
    Form(
        "Llama, Llama 3's RoPE",
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    Form(
        "Llama, dynamic RoPE", "llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}
    ),
    Form("Qwen2", "qwen2"),
    Form(
        "Qwen2, windows in one layer",
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    Form("Qwen3", "qwen3"),
    Form("Mistral", "mistral", {"sliding_window": None}),
    Form("Mistral, window", "mistral", {"sliding_window": WINDOW}),
    Form("Gemma", "gemma"),
    Form(
        "Gemma 2",
        "gemma2",
        {**LAYERS, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    Form("Gemma 3 text", "gemma3_text", {**LAYERS, "query_pre_attn_scalar": 8}),
    Form("Phi-3", "phi3"),
    Form(
        "Phi-3, long RoPE",
        "phi3",
        {
            "max_position_embeddings": 256,
            "original_max_position_embeddings": CONTEXT,
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **FACTORS},
        },
    ),
    Form("Phi", "phi", {"partial_rotary_factor": 0.5}),
    Form("GPT-2", "gpt2", {}, OLD),
    Form("GPT-NeoX", "gpt_neox", {"intermediate_size": 48}, OLD),
    Form("OPT", "opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}, OLD),
    Form("GPT-J", "gptj", {"rotary_dim": 4}, OLD),
    Form("GPT-BigCode", "gpt_bigcode", {}, OLD),
    Form("BioGPT", "biogpt", {"intermediate_size": 48}, OLD),
    Form("Qwen2-MoE", "qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 32}),
    Form("Qwen3-MoE", "qwen3_moe", EXPERTS),
    Form("Mixtral", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    Form(
        "gpt-oss",
        "gpt_oss",
        {
            **LAYERS,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    Form("OLMo", "olmo"),
    Form("OLMo 2", "olmo2"),
    Form("OLMo 3", "olmo3", LAYERS),
    Form("OLMoE", "olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    Form("StableLM", "stablelm"),
    Form("Starcoder2", "starcoder2"),
    Form("Starcoder2, window", "starcoder2", {"sliding_window": WINDOW}),
    Form("SmolLM3", "smollm3"),
    Form(
        "Granite",
        "granite",
        {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2},
    ),
    Form("Granite-MoE", "granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Form("Cohere", "cohere", {"logit_scale": 0.3}),
    Form("Cohere 2", "cohere2", {**LAYERS, "logit_scale": 0.3}),
    Form("GLM", "glm"),
    Form("GLM-4", "glm4"),
    Form("Nemotron", "nemotron"),
    Form("Helium", "helium"),
    Form("Arcee", "arcee"),
    Form("Seed-OSS", "seed_oss"),
    Form("EXAONE 4", "exaone4", LAYERS),
    Form("ERNIE 4.5", "ernie4_5"),
    Form("Apertus", "apertus"),
    Form("Ministral", "ministral", LAYERS),
    Form("Falcon", "falcon", {"alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2}, OLD),
    Form("Falcon, ALiBi", "falcon", {"alibi": True}, OLD, refused="takes no positions"),
    Form("BLOOM", "bloom", {}, OLD, refused="takes no positions"),
    Form(
        "MPT",
        "mpt",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT},
        {},
        refused="takes no positions",
    ),
    Form(
        "GPT-Neo",
        "gpt_neo",
        {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
        OLD,
        refused="counts slots of the cache",
    ),
    Form("Doge", "doge", {}, refused="chooses for itself"),
    Form("Mamba", "mamba", {"hidden_size": 32, "num_hidden_layers": 2}, {}, refused="takes no positions"),
    Form(
        "DeepSeek-V2",
        "deepseek_v2",
        {
            "kv_lora_rank": 8,
            "q_lora_rank": None,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "head_dim": 4,
            "num_key_value_heads": 4,
        },
        refused="shapes .* for two tokens",
    ),
    Form(
        "Llama 4",
        "llama4_text",
        {"attention_chunk_size": WINDOW, "num_local_experts": 2, "intermediate_size_mlp": 32},
        refused="layers of type chunked_attention",
    ),
    Form(
        "Bamba",
        "bamba",
        {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_d_state": 8},
        refused="layers of type linear_attention",
    ),
)


def form(name: str) -> Form:
    return next(form for form in FORMS if form.name == name)


def torch_forward(module: GraphModule, facts: ModelFacts) -> Callable[[Sequence[NDArray[Any]]], list[NDArray[Any]]]:
    """A module called as `parity` calls the graph that is traced from it."""

    def forward(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        ids, positions, mask, rows, *rest = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        past, more = rest[: len(facts.cache_names)], rest[len(facts.cache_names) :]
        with torch.inference_mode():
            return [tensor.numpy() for tensor in module(ids, positions, mask, rows, past, *more)]

    return forward


@contextmanager
def untraced() -> Iterator[None]:
    """Exports compare the module that would be traced, and write an empty graph: for the torch engine."""
    expected_of = parity.expected_of

    def asked(model: PreTrainedModel, columns: NDArray[np.int64]) -> parity.Expected:
        expected = expected_of(model, columns)
        forward = torch_forward(GraphModule(model, columns).eval(), expected.facts)
        patch.setattr(parity, "onnx_forward", lambda path: forward)
        return expected

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "export_graph", lambda model, columns, path, **_: path.write_bytes(b""))
        patch.setattr(parity, "expected_of", asked)
        yield


def equals_generate(bundle: Path, engine: str, widths: Sequence[int] = (1, 5, 20)) -> int:
    """Assert that the bundle's lists are those of `generate` on its checkpoint; returns how many drafts failed."""
    opened = Bundle.open(bundle)
    trie, catalog = opened.trie(), opened.catalog()
    truth, names = TrieGenerate.open(opened, device="cpu", scoring="full"), leaf_identifiers(trie, catalog.identifiers)
    recommender = Recommender.open(opened, engine=EngineChoice(engine, threads=1), batching=2)
    rng = np.random.default_rng(5)
    histories = [rng.choice(catalog.item_ids, size).tolist() for size in (1, 15, 8)]  # windows are shorter than two
    for k in widths:
        for history, result in zip(histories, recommender.recommend(histories, k), strict=True):
            expected = [(names[leaf], score) for leaf, score in truth(recommender.encode(history).prompt, k)]
            ranked = as_ranked(result)
            fault = ranking_fault(ranked, expected[: len(ranked)])
            assert fault is None, fault
    return recommender.stats.rejections
