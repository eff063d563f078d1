"""A checkpoint's tokenizer, and which of its files is at fault where it has none that works."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..catalog.errors import ExportError, SpecBeamError, is_fault, said
from ..catalog.extras import install_module
from ..catalog.records import read_json
from ..pools.texts.tokenizer import load

TOKENIZER, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
SAVE_AGAIN = "save it there with tokenizer.save_pretrained(...)"

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Token = str | dict[str, Any] | None


class Settings(msgspec.Struct):
    """What is relied on of tokenizer_config.json, and of special_tokens_map.json."""

    auto_map: Any = None
    tokenizer_class: str | None = None
    bos_token: Token = None
    eos_token: Token = None
    pad_token: Token = None
    unk_token: Token = None
    chat_template: str | list[Any] | dict[str, str] | None = None
    added_tokens_decoder: dict[str, dict[str, Any]] | None = None


FILES: dict[str, Any] = {
    "tokenizer_config.json": Settings,
    "special_tokens_map.json": Settings,
    "added_tokens.json": dict[str, TokenId],
}


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a local directory. Raises `ExportError` when there is none that works, or it brings code."""
    for name, kind in FILES.items():
        if not (directory / name).is_file():
            continue
        content, _ = read_json(directory / name, kind, f"expected a tokenizer's settings; {SAVE_AGAIN}", ExportError)
        if isinstance(content, Settings) and content.auto_map is not None:
            raise ExportError(
                f"{directory}'s tokenizer brings its own code (auto_map in {name}), which is never run. Convert it."
            )
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        tokenizer.get_vocab()
        tokenizer("")  # some settings are looked at only now
    except BaseException as error:
        if not is_fault(error):
            raise
        raise ExportError(_fault(directory, error)) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _fault(directory: Path, error: BaseException) -> str:
    """What is wrong with a tokenizer that transformers cannot load: its own message names what it tried last."""
    file, pieces = directory / TOKENIZER, directory / SENTENCEPIECE
    if file.is_file():
        try:
            load(file)
        except SpecBeamError as cause:
            return str(cause)
    elif pieces.is_file() and find_spec("sentencepiece") is None:
        return f"{pieces} needs sentencepiece, which is not installed. Run: {install_module('sentencepiece')}"
    elif pieces.is_file():
        return f"{pieces} is no model of sentencepiece: {said(error)}. Copy it again, or {SAVE_AGAIN}."
    return f"{directory} has no tokenizer that transformers can load ({said(error)}); {SAVE_AGAIN}."
