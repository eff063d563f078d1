"""The tokenizer of a text bundle or a pool: its file, its fingerprint, and the tokenizer itself."""

import hashlib
import json
from pathlib import Path
from string import printable
from typing import TYPE_CHECKING, Any

from ...catalog.errors import PoolError, is_fault, said

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
_INDIFFERENT = ("version", "truncation", "padding")  # of tokenizer.json: they do not say which text is which tokens


def tokenizer_file(path: Path) -> Path:
    """The tokenizer.json that is meant: a file, one in a folder, or a text bundle's. Raises `PoolError`."""
    for file in (path, path / TOKENIZER, path / "tokenizer" / TOKENIZER):
        if file.is_file():
            return file
    raise PoolError(
        f"{path}: no tokenizer there; expected a {TOKENIZER}, or a folder or text bundle that has one. Give the "
        "bundle that the texts are written with."
    )


def fingerprint(file: Path) -> str:
    """SHA-256 of what a tokenizer.json says of text and tokens: the same for the same tokenizer."""
    content = _read(file)
    essence = {key: value for key, value in content.items() if key not in _INDIFFERENT}
    canonical = json.dumps(essence, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def load(file: Path) -> "Tokenizer":
    """The tokenizer, which cuts and pads nothing. Raises `PoolError` for a file that is none."""
    from tokenizers import Tokenizer

    _read(file)
    try:
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.encode(printable)
    except BaseException as error:  # the library raises nothing more particular
        if not is_fault(error):
            raise
        raise PoolError(f"{file} is not a tokenizer: {said(error)}. Save the model's tokenizer again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def named_end_token(file: Path) -> str | None:
    """The end-of-text token that tokenizer_config.json, beside the tokenizer, names; None where it names none."""
    config = file.with_name(CONFIG)
    named = _read(config).get("eos_token") if config.is_file() else None
    if isinstance(named, dict):
        named = named.get("content")
    return named if isinstance(named, str) else None


def token_id(tokenizer: "Tokenizer", token: str) -> int:
    """A token's id. Raises `PoolError` where the tokenizer does not have it."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise PoolError(f"the tokenizer has no token {token!r}. Name its end-of-text token with --end-token.")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PoolError(f"{file} is damaged: {error}. Save the model's tokenizer again.") from error
    if not isinstance(content, dict):
        raise PoolError(f"{file}: expected a JSON object, as `save_pretrained` writes. Save the tokenizer again.")
    return content
