"""What stands around the items of a prompt: the options, how they are written on a command line, how two differ."""

import shlex
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import fields

from ..checks import Checked
from ..errors import OptionError
from ..identifiers import EndToken


class PromptOptions(Checked, frozen=True, kw_only=True):
    """What stands around the items: to training, aligning and export it must be the same.

    Raises `OptionError` for a system message or variables of a chat template that is not asked for.
    """

    prompt: str | None = None  # text with "{history}" in it; None: the tokenizer's bos and the items' tokens
    separator: str = ""  # between two items
    join: str = ""  # between two strings of an identifier
    chat: bool = False  # the prompt is the user's message in the tokenizer's chat template
    chat_variables: dict[str, Any] = msgspec.field(default_factory=dict)  # which the chat template is given
    system: str | None = None  # message, in the chat template
    history_length: int = 20  # at most so many items, the most recent ones
    end_token: EndToken = "auto"  # behind an identifier: see `tokens.compile_identifiers`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_chat_only(chat=self.chat, chat_variables=self.chat_variables, system=self.system)

    def arguments(self) -> list[str]:
        """As options of a command line; what is at its default is left out."""
        usual = PromptOptions()
        return [word for name in _NAMES if name in self.differing(usual) for word in _words(name, getattr(self, name))]

    def written(self, name: str) -> str:
        """One of the options as it is written in a shell, or that it is not given."""
        words = _words(name, getattr(self, name))
        return shlex.join(words) if words else f"no {_flag(name)}"

    def differing(self, other: "PromptOptions") -> list[str]:
        """The names of the options that are not those of `other`."""
        return [name for name in _NAMES if getattr(self, name) != getattr(other, name)]


_SPELLED = {"True": True, "False": False, "None": None}  # by Python
_NAMES = tuple(field.name for field in fields(PromptOptions))


def contradictions(options: PromptOptions, trained: PromptOptions) -> list[str]:
    """Options that are not as trained; of an end token that is left to the catalog nothing is known."""
    unknown = ["end_token"] if "auto" in (options.end_token, trained.end_token) else []
    return [name for name in options.differing(trained) if name not in unknown]


def contrast(options: PromptOptions, trained: PromptOptions, names: Iterable[str]) -> str:
    """Options beside those that were trained, as they are written."""
    return ", ".join(f"{options.written(name)} (trained: {trained.written(name)})" for name in names)


def check_chat_only(*, chat: bool, chat_variables: dict[str, Any], system: str | None) -> None:
    """Raise `OptionError` where a chat template's message or variables are given, but no chat is asked for."""
    told = [
        _flag(name) for name, given in (("chat_variables", chat_variables), ("system", system is not None)) if given
    ]
    if told and not chat:
        raise OptionError(f"{', '.join(told)}: for the tokenizer's chat template only. Add --chat, or leave that out.")


def _flag(name: str) -> str:
    return "--chat-variable" if name == "chat_variables" else "--" + name.replace("_", "-")


def _words(name: str, value: Any) -> list[str]:
    """An option's words on a command line; none where it is not given."""
    if name == "chat":
        return ["--chat" if value else "--no-chat"]
    if name == "chat_variables":
        return [word for key, inner in value.items() for word in (_flag(name), f"{key}={_as_text(inner)}")]
    return [] if value is None else [_flag(name), str(value)]


def _as_text(value: Any) -> str:
    """What `variable_value` reads as `value`."""
    return value if isinstance(value, str) and variable_value(value) == value else msgspec.json.encode(value).decode()


def variable_value(text: str) -> Any:
    """A chat template's variable from a command line: JSON where it is JSON, or True, False, None; else the text."""
    if text in _SPELLED:
        return _SPELLED[text]
    try:
        return msgspec.json.decode(text.encode("utf-8", "surrogatepass"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text
