"""What a checkpoint was trained with is taken for what is not told, and held against what is."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_cases import FAMILIES
from commands import bad, good
from specbeam.align.synthetic import ShopSize, write_shop
from specbeam.catalog import PromptOptions
from specbeam.catalog.prompts.options import variable_value
from specbeam.engines.bundle.items import Bundle
from tiny_models import tiny_catalog

PROMPT, SEPARATOR = "The user's items: {history}\nNext: ", " , "
FORM = ("--prompt", PROMPT, "--separator", SEPARATOR, "--history-length", 4)
FEW = ("--steps", 2, "--checks", 1, "--batch-size", 4)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in a folder whose name a shell would take apart."""
    folder = tmp_path_factory.mktemp("trained") / "my shop"
    write_shop(folder, ShopSize(items=60, twins=0, train_users=30, held_out_users=8, longest=6))
    return folder


@pytest.fixture(scope="module")
def target(shop: Path) -> Path:
    """A target that was trained with a prompt, the commands that were printed beside it."""
    output = shop.parent / "the target"
    shown = good("train", "--data", shop, "--config", "1x32", *FORM, *FEW, "--output", output).output
    (shop.parent / "printed").write_text(shown)
    return output


def run_printed(shown: str, begins: str, *more: object, target: Path | None = None) -> str:
    """Run the command that was printed behind `begins` as a shell would, with `target` for TARGET."""
    command = shown.partition(begins)[2].partition("\nNext, ")[0]
    words = [str(target) if word == "TARGET" else word for word in shlex.split(command)]
    assert words.pop(0) == "specbeam"
    return good(*words, *more).output


def prompt_of(bundle: Path) -> PromptOptions:
    options = Bundle.open(bundle).manifest.prompt_options
    assert isinstance(options, PromptOptions)
    return options


def export(shop: Path, target: Path, bundle: Path, *told: object) -> tuple[object, ...]:
    return ("export", "--target", target, "--catalog", shop / "index.json", "--output", bundle, *told)


@pytest.mark.usefixtures("quick_exports")
def test_printed_commands_go_all_the_way(
    shop: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = (shop.parent / "printed").read_text()
    run_printed(printed, "Next, as a target: ")
    alone = prompt_of(tmp_path / "bundle")
    assert (alone.prompt, alone.separator, alone.history_length) == (PROMPT, SEPARATOR, 4)
    shown = good("train", "--data", shop, "--config", "1x32", "--tokenizer", target, *FEW, "-o", "a draft").output
    shown = run_printed(shown, "Next, as a draft: ", *FEW, target=target)
    assert "another prompt" not in shown
    (tmp_path / "bundle").rename(tmp_path / "alone")
    run_printed(shown, "Next: ")
    pair = Bundle.open(tmp_path / "bundle").manifest
    assert pair.draft is not None
    assert pair.prompt == Bundle.open(tmp_path / "alone").manifest.prompt
    record = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert record["prompt"]["separator"] == SEPARATOR


def test_what_is_not_told_is_as_trained(shop: Path, target: Path, tmp_path: Path) -> None:
    good(*export(shop, target, tmp_path / "bundle"))
    assert prompt_of(tmp_path / "bundle").arguments() == [*map(str, FORM), "--end-token", "never"]
    good("align", "--target", target, "--draft", "1x32", "--data", shop, *FEW, "-o", tmp_path / "aligned")
    record = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert record["prompt"] == json.loads((target / "training.json").read_text())["prompt"]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (("--separator", ";"), "--separator ';' (trained: --separator ' , ')"),
        (("--prompt", "{history}"), "--prompt '{history}' (trained: --prompt 'The user'\"'\"'s items: {history}"),
        (("--join", " "), "--join ' ' (trained: --join '')"),
        (("--chat",), "--chat (trained: --no-chat)"),
        (("--chat", "--system", "x"), "--system x (trained: no --system)"),
        (("--end-token", "always"), "--end-token always (trained: --end-token never)"),
    ],
)
@pytest.mark.parametrize("verb", ["export", "align"])
def test_contradictions_are_refused(
    shop: Path, target: Path, tmp_path: Path, verb: str, told: tuple[str, ...], message: str
) -> None:
    command: dict[str, tuple[object, ...]] = {
        "export": export(shop, target, tmp_path / "bundle"),
        "align": ("align", "--target", target, "--draft", "1x32", "--data", shop, "-o", tmp_path / "aligned"),
    }
    fault = bad(*command[verb], *told)
    assert message in fault
    assert f"{target}/training.json" in fault
    assert "--other-prompt" in fault
    assert list(tmp_path.iterdir()) == []


def test_another_prompt_on_purpose_is_told_of_in_an_evaluation(shop: Path, target: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    good(*export(shop, target, bundle, "--separator", " , ", "--prompt", "items: {history}", "--other-prompt"))
    assert prompt_of(bundle).history_length == 20
    good("build-engine", bundle, "--threads", 1)
    shown = good("evaluate", bundle, shop, "-k", 1, "--users", 2, "--timed-users", 0, "--threads", 1).output
    flat = " ".join(shown.split())
    assert "the target was trained with another prompt: --prompt 'items: {history}' (trained: --prompt" in flat


def test_another_length_is_only_told_of(shop: Path, target: Path, tmp_path: Path) -> None:
    shown = good(*export(shop, target, tmp_path / "bundle", "--history-length", 3, "--draft", target)).stderr
    assert shown.count("was trained with another prompt") == 2  # the target, and the draft
    assert "--history-length 3 (trained: --history-length 4)" in shown
    assert prompt_of(tmp_path / "bundle").history_length == 3


@pytest.mark.parametrize("lora", [(), ("--lora", 2)])
def test_chats_are_remembered_by_whole_checkpoints_and_adapters(
    shop: Path, tmp_path: Path, lora: tuple[object, ...]
) -> None:
    base, output = FAMILIES["qwen3"].checkpoint(tmp_path / "base"), tmp_path / "model"
    chat = ("--chat", "--system", "You recommend.", "--chat-variable", "enable_thinking=false", "--prompt", "{history}")
    good("train", "--data", shop, "--from", base, *lora, *chat, *FEW, "--output", output)
    good(*export(shop, output, tmp_path / "bundle"))
    found = prompt_of(tmp_path / "bundle")
    assert (found.chat, found.system, found.chat_variables) == (True, "You recommend.", {"enable_thinking": False})
    told = bad(*export(shop, output, tmp_path / "other", "--chat-variable", "enable_thinking=true"))
    assert "--chat-variable enable_thinking=true (trained: --chat-variable enable_thinking=false)" in told
    template = output / "chat_template.jinja"
    template.write_text(template.read_text().replace("<think>", "<think> "))
    told = bad(*export(shop, output, tmp_path / "other"))
    assert "tokens are not those of training" in told
    good(*export(shop, output, tmp_path / "other", *chat, "--other-prompt"))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"prompt": {"separtor": 1}}', b'{"prompt": {"chat": 1}}', b"\xff"]
)
def test_a_record_that_cannot_be_read_is_named(shop: Path, tmp_path: Path, content: bytes) -> None:
    target = FAMILIES["llama3"].checkpoint(tmp_path / "target")
    (target / "training.json").write_bytes(content)
    assert f"{target}/training.json does not say" in bad(*export(shop, target, tmp_path / "bundle"))


# --- how options are written


def test_options_survive_a_command_line() -> None:
    values: list[Any] = [True, None, 3, "three", "3", "true", '"quoted"', [1, {"a": None}], "it's", "", "a=b"]
    for value in values:
        options = PromptOptions(chat=True, chat_variables={"x": value}, prompt="{history}\n'")
        words = options.arguments()
        assert words[:3] == ["--prompt", "{history}\n'", "--chat"]
        name, _, text = words[-1].partition("=")
        read = variable_value(text)
        assert (name, type(read), read) == ("x", type(value), value)
    assert PromptOptions().arguments() == []


def test_what_python_spells_is_read_and_texts_of_that_name_are_quoted() -> None:
    assert [variable_value(text) for text in ("True", "False", "None", "true")] == [True, False, None, True]
    options = PromptOptions(chat=True, chat_variables={"x": "False"})
    assert options.written("chat_variables") == "--chat-variable 'x=\"False\"'"


SPELLED = st.sampled_from(["True", "False", "None", "true", "null", "1", "1e999", "NaN", "[1]", '"a"', "{", "\udcff"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    LEAVES | SPELLED, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(LEAVES.filter(lambda value: isinstance(value, str)) | SPELLED)
def test_every_variable_that_is_read_survives_being_written(text: str) -> None:
    value = variable_value(text)
    (_, word) = PromptOptions(chat=True, chat_variables={"x": value}).arguments()[-2:]
    again = variable_value(word.removeprefix("x="))
    assert (type(again), again) == (type(value), value)


@given(VALUES.filter(lambda value: "\\udcff" not in repr(value)))
def test_every_value_survives_being_written(value: Any) -> None:
    (_, word) = PromptOptions(chat=True, chat_variables={"x": value}).arguments()[-2:]
    assert repr(variable_value(word.removeprefix("x="))) == repr(value)


@pytest.fixture
def read_prompt(tmp_path: Path) -> Callable[[bytes], str]:
    """What export reads of a prompt file."""
    target = FAMILIES["qwen3"].checkpoint(tmp_path / "target")
    tiny_catalog(tmp_path / "index.json")

    def read(content: bytes) -> str:
        (tmp_path / "prompt.txt").write_bytes(content)
        bundle = tmp_path / "bundle"
        good(*export(tmp_path, target, bundle, "--prompt-file", tmp_path / "prompt.txt", "--overwrite"))
        return prompt_of(bundle).prompt or ""

    return read


def test_a_prompt_file_is_taken_as_it_is(tmp_path: Path, read_prompt: Callable[[bytes], str]) -> None:
    assert read_prompt(b"\xef\xbb\xbf\nBought:\r\n{history}\nNext:\n") == "\nBought:\r\n{history}\nNext:\n"
    common = export(tmp_path, tmp_path / "target", tmp_path / "other", "--prompt-file", tmp_path / "prompt.txt")
    assert "expected one of them" in bad(*common, "--prompt", "{history}")
    (tmp_path / "prompt.txt").write_bytes(b"one\n\xff{history}")
    assert "prompt.txt, line 2: not UTF-8" in bad(*common)
    (tmp_path / "prompt.txt").unlink()
    assert "prompt.txt: cannot be read: No such file" in bad(*common)
