"""Chat templates that do as those of well-known models, on tiny tokenizers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from tiny_models import identifier_tokens, tiny_checkpoint

LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}{%- if message.role != "system" or not loop.first %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- else %}{{- " " + message["content"] + eos_token }}{%- endif %}
{%- endfor %}"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""


@dataclass(frozen=True)
class Family:
    """A tokenizer's special tokens and chat template; bos is put before every text, if there is one."""

    template: str
    bos: str | None
    eos: str
    special: tuple[str, ...]
    kind: str = "llama"  # of `tiny_models.KINDS`: what its tiny model is

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Byte-level BPE, with the identifiers as added tokens."""
        backend = Tokenizer(BPE())
        backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
        backend.decoder = ByteLevelDecoder()
        special = ["<pad>", *([self.bos] if self.bos else []), self.eos, *self.special]
        trainer = BpeTrainer(
            vocab_size=320, special_tokens=special, initial_alphabet=ByteLevel.alphabet(), show_progress=False
        )
        backend.train_from_iterator(["The user bought system assistant model, what is next?"] * 4, trainer)
        backend.add_tokens([AddedToken(token, normalized=False) for token in identifier_tokens()])
        if self.bos:
            first = [(self.bos, backend.token_to_id(self.bos))]
            backend.post_processor = TemplateProcessing(single=f"{self.bos} $A", special_tokens=first)
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=self.bos, eos_token=self.eos, pad_token="<pad>",
            chat_template=self.template,
        )  # fmt: skip

    def checkpoint(self, directory: Path) -> Path:
        return tiny_checkpoint(directory, self.kind, tokenizer=self.tokenizer(), max_position_embeddings=512)


FAMILIES: Mapping[str, Family] = {
    "llama3": Family(
        LLAMA3, "<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
    ),
    "qwen3": Family(QWEN3, None, "<|im_end|>", ("<|im_start|>", "<think>", "</think>"), "qwen3"),
    "mistral": Family(MISTRAL, "<s>", "</s>", ("[INST]", "[/INST]"), "mistral"),
    "gemma": Family(GEMMA, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>")),
}


def as_trained(
    tokenizer: PreTrainedTokenizerFast, text: str, system: str | None = None, variables: Mapping[str, Any] | None = None
) -> list[int]:
    """The ids that transformers makes of a conversation, by which such models are trained."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": text})
    ids: list[int] = tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False, **(variables or {})
    )
    return ids
