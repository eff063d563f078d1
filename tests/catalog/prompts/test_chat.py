"""Prompts in chat templates: the ids of training, and the lists of `generate` on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.shared import TrieGenerate, as_ranked, leaf_identifiers, ranking_fault
from chat_cases import FAMILIES, as_trained
from commands import bad, good
from specbeam.align.training.samples import Format
from specbeam.catalog import Catalog, PromptEncoder, PromptOptions, compile_prompt
from specbeam.catalog.errors import OptionError, PromptError
from specbeam.catalog.prompts.chat import Chat
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.runtime import EngineChoice, Recommender
from tiny_models import tiny_catalog

pytestmark = pytest.mark.usefixtures("quick_exports")
PROMPT, SEPARATOR = "The user bought {history}", ", "
SYSTEM = "You recommend what is next."
CASES: list[tuple[str, str | None, dict[str, Any]]] = [
    ("llama3", None, {}),
    ("llama3", SYSTEM, {"date_string": "1 May 2025"}),
    ("qwen3", None, {"enable_thinking": True}),
    ("qwen3", SYSTEM, {"enable_thinking": False}),
    ("mistral", None, {}),
    ("mistral", SYSTEM, {}),
    ("gemma", None, {}),
]
cases = pytest.mark.parametrize(("name", "system", "variables"), CASES)


def history_text(catalog: Catalog, history: list[int]) -> str:
    items = SEPARATOR.join("".join(catalog.identifiers[item]) for item in history)
    return PROMPT.replace("{history}", items)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.load(tiny_catalog(tmp_path / "index.json"), None)


@cases
def test_the_compiled_prompt_is_what_training_renders(
    catalog: Catalog, name: str, system: str | None, variables: dict[str, Any]
) -> None:
    tokenizer = FAMILIES[name].tokenizer()
    options = PromptOptions(
        prompt=PROMPT, separator=SEPARATOR, chat=True, system=system, chat_variables=variables, history_length=5
    )
    form = Format.compile(tokenizer, catalog, options)
    encoder = PromptEncoder(form.spec, form.identifiers.tokens, 500)
    rng = np.random.default_rng(1)
    for length in range(1, 6):
        history = rng.integers(len(catalog.item_ids), size=length)
        expected = as_trained(tokenizer, history_text(catalog, history.tolist()), system, variables)
        assert encoder.encode(history).ids.tolist() == expected
        trained = form.answer(history, 0)[0].tolist()
        assert trained[: len(expected)] == expected


@cases
def test_the_rendered_text_as_a_literal_prompt_is_the_same(
    catalog: Catalog, name: str, system: str | None, variables: dict[str, Any]
) -> None:
    tokenizer = FAMILIES[name].tokenizer()
    chat = PromptOptions(prompt=PROMPT, separator=SEPARATOR, chat=True, system=system, chat_variables=variables)
    text = Chat(tokenizer, system, variables).render(PROMPT)
    literal = PromptOptions(prompt=text, separator=SEPARATOR)
    assert compile_prompt(tokenizer, catalog, literal) == compile_prompt(tokenizer, catalog, chat)


@pytest.mark.parametrize(
    ("name", "system", "variables"), [CASES[number] for number in (1, 2, 3, 5, 6)], ids=lambda value: str(value)[:20]
)
def test_lists_are_those_of_generate_on_the_prompt_of_training(
    tmp_path: Path, name: str, system: str | None, variables: dict[str, Any]
) -> None:
    target, bundle = FAMILIES[name].checkpoint(tmp_path / "target"), tmp_path / "bundle"
    index = tiny_catalog(tmp_path / "index.json")
    told: list[str] = [] if system is None else ["--system", system]
    for variable, value in variables.items():
        told += ["--chat-variable", f"{variable}={value if isinstance(value, str) else json.dumps(value)}"]
    shown = good(
        "export", "--target", target, "--catalog", index, "--chat", "--prompt", PROMPT, "--separator", SEPARATOR,
        *told, "--output", bundle,
    ).stderr  # fmt: skip
    build_engine(bundle, threads=1)
    opened = Bundle.open(bundle)
    trie, catalog = opened.trie(), opened.catalog()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(target)
    sample = as_trained(tokenizer, history_text(catalog, [0, 1, 2]), system, variables)
    assert f"prompt of items 0, 1, 2: {tokenizer.decode(sample)!r}, ids {sample}" in shown
    generate = TrieGenerate(AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32), trie)
    recommender, names = (
        Recommender.open(opened, engine=EngineChoice(threads=1)),
        leaf_identifiers(trie, catalog.identifiers),
    )
    rng = np.random.default_rng(2)
    for _ in range(8):
        history = rng.choice(len(catalog.item_ids), rng.integers(1, 8)).tolist()
        prompt = np.array(as_trained(tokenizer, history_text(catalog, history), system, variables), np.int64)
        (result,) = recommender.recommend([[catalog.item_ids[item] for item in history]], 10)
        ranked = as_ranked(result)
        truth = [(names[leaf], score) for leaf, score in generate(prompt, 10)]
        assert ranking_fault(ranked, truth[: len(ranked)]) is None


# --- refused


def refuse(message: str, name: str, catalog: Catalog, template: str | None = None, **options: Any) -> None:
    tokenizer = FAMILIES[name].tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    with pytest.raises(PromptError, match=message):
        compile_prompt(tokenizer, catalog, PromptOptions(prompt=PROMPT, separator=SEPARATOR, chat=True, **options))


def test_a_template_without_a_system_message_is_said_to_be_so(catalog: Catalog) -> None:
    refuse("with --system: System role not supported. .* leave --system out", "gemma", catalog, system=SYSTEM)
    only_users = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    refuse("ignores the system message", "qwen3", catalog, only_users, system=SYSTEM)
    refuse(r"system message 'buy \{history\}' holds \{history\}", "qwen3", catalog, system="buy {history}")


def test_a_variable_that_the_template_never_mentions_is_refused(catalog: Catalog) -> None:
    unknown = {"chat_variables": {"thinking": False}}
    refuse("never mentions 'thinking' .* Its variables are: enable_thinking", "qwen3", catalog, **unknown)
    refuse("Its variables are: bos_token", "gemma", catalog, **unknown)
    refuse("never mentions 'messages'", "qwen3", catalog, chat_variables={"messages": []})
    own = "{% macro turn(m) %}{{ m.content }}{% endmacro %}{% for m in messages %}{{ turn(m) }}{% break %}{% endfor %}"
    marked = own + "{% generation %}{{ mood }}{% endgeneration %}"
    refuse(r"Its variables are: mood\.", "qwen3", catalog, marked, **unknown)


def test_a_variable_that_changes_nothing_is_warned_of(catalog: Catalog) -> None:
    def warned(name: str, **variables: Any) -> list[str]:
        told: list[str] = []
        options = PromptOptions(prompt=PROMPT, separator=SEPARATOR, chat=True, chat_variables=variables)
        compile_prompt(FAMILIES[name].tokenizer(), catalog, options, told.append)
        return told

    assert warned("qwen3", enable_thinking=False) == []
    for value in ("no", "False", 0, True):
        expected = [f"--chat-variable enable_thinking={value!r} changes nothing in the prompt"]
        assert warned("qwen3", enable_thinking=value) == expected
    assert warned("llama3", date_string="1 May 2025") == []
    assert len(warned("llama3", date_string="26 Jul 2024")) == 1


def test_a_variable_without_which_the_template_cannot_do_is_none_of_those(catalog: Catalog) -> None:
    told: list[str] = []
    tokenizer = FAMILIES["qwen3"].tokenizer()
    tokenizer.chat_template = "{{ mood + messages[0].content }}"
    options = PromptOptions(prompt=PROMPT, chat=True, chat_variables={"mood": "x"})
    compile_prompt(tokenizer, catalog, options, told.append)
    assert told == []


def test_exports_warn_of_what_may_not_be_meant(tmp_path: Path) -> None:
    tiny_catalog(tmp_path / "index.json")
    target = FAMILIES["llama3"].checkpoint(tmp_path / "target")
    items = ("--catalog", tmp_path / "index.json", "--output", tmp_path / "bundle", "--overwrite")
    text = ("--text", "--output", tmp_path / "text", "--overwrite")
    for kind, place in ((items, "{history}"), (text, "{prompt}")):
        common = ("export", "--target", target, *kind)
        idle = "WARNING: --chat-variable date_string='26 Jul 2024' changes nothing in the prompt"
        assert idle in good(*common, "--chat", "--chat-variable", "date_string=26 Jul 2024").stderr
        assert "WARNING" not in good(*common, "--chat", "--chat-variable", "date_string=1 May 2025").stderr
        twice = "WARNING: the prompt holds <|begin_of_text|> twice: ids [1, "
        assert twice in good(*common, "--prompt", f" <|begin_of_text|>buy {place}").stderr
        assert "WARNING" not in good(*common, "--prompt", f"<|begin_of_text|>buy {place}").stderr


def test_chat_options_need_a_chat(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--chat-variable, --system: for the tokenizer's chat template only"):
        PromptOptions(prompt=PROMPT, chat_variables={"a": 1}, system="x")
    common = ("export", "--target", tmp_path, "--output", tmp_path / "bundle", "--system", "x")
    tiny_catalog(tmp_path / "index.json")
    FAMILIES["qwen3"].checkpoint(tmp_path)
    assert "--system: for the tokenizer's chat template only. Add --chat" in bad(
        *common, "--catalog", tmp_path / "index.json"
    )
    assert "--system: for the tokenizer's chat template only" in bad(*common, "--text")
