"""Tiny random decoders of many architectures, and what export is expected to do with each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

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

    def save(self, directory: Path, *, seed: int = 0, **settings: Any) -> Path:
        """A checkpoint with random weights, far from uniform predictions, and the tokenizer of `tiny_models`."""
        tokenizer = make_tokenizer(identifier_tokens())
        chosen = {**self.sizes, **TOKENS, "vocab_size": len(tokenizer) + 4, "initializer_range": 0.3, **self.settings}
        config = AutoConfig.for_model(self.model_type, **{**chosen, **settings})
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config).eval()
            for name, weight in model.named_parameters():
                if name.endswith("bias") or "sinks" in name:
                    weight.normal_(0, 0.3)
                elif "norm" in name or "ln_" in name:
                    weight.uniform_(0.5, 1.5)
                elif weight.ndim > 1:
                    weight.normal_(0, 0.3)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return directory


FORMS = (
    Form("Llama", "llama"),
    Form("Llama, Llama 3's RoPE", "llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}),
    Form("Llama, dynamic RoPE", "llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    Form("Qwen2", "qwen2"),
    Form("Qwen2, windows in one layer", "qwen2", {
        "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    Form("Qwen3", "qwen3"),
    Form("Mistral", "mistral", {"sliding_window": None}),
    Form("Mistral, window", "mistral", {"sliding_window": WINDOW}),
    Form("Gemma", "gemma"),
    Form("Gemma 2", "gemma2", {**LAYERS, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0}),
    Form("Gemma 3 text", "gemma3_text", {**LAYERS, "query_pre_attn_scalar": 8}),
    Form("Phi-3", "phi3"),
    Form("Phi-3, long RoPE", "phi3", {"max_position_embeddings": 256, "original_max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **FACTORS}}),
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
    Form("gpt-oss", "gpt_oss", {**LAYERS, "num_local_experts": 4, "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    Form("OLMo", "olmo"),
    Form("OLMo 2", "olmo2"),
    Form("OLMo 3", "olmo3", LAYERS),
    Form("OLMoE", "olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    Form("StableLM", "stablelm"),
    Form("Starcoder2", "starcoder2"),
    Form("Starcoder2, window", "starcoder2", {"sliding_window": WINDOW}),
    Form("SmolLM3", "smollm3"),
    Form("Granite", "granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5,
        "attention_multiplier": 0.2}),
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
    Form("Falcon, ALiBi", "falcon", {"alibi": True}, OLD),
    Form("BLOOM", "bloom", {}, OLD),
    Form("MPT", "mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT}, {}),
    Form("GPT-Neo", "gpt_neo", {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}, OLD),
    Form("Doge", "doge", {}),
    Form("Mamba", "mamba", {"hidden_size": 32, "num_hidden_layers": 2}, {}),
    Form("DeepSeek-V2", "deepseek_v2", {"kv_lora_rank": 8, "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
        "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 4}),
    Form("Llama 4", "llama4_text", {"attention_chunk_size": WINDOW, "num_local_experts": 2, "intermediate_size_mlp": 32}),
    Form("Bamba", "bamba", {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_d_state": 8}),
)
