"""The command that makes a bundle again, from what its manifest says, whatever schema that follows."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ...catalog.arrays import map_arrays
from ...catalog.bounds import DAMAGED
from ...catalog.errors import CatalogError
from ...catalog.prompts.options import PromptOptions

CATALOG_FILE = "catalog/items.safetensors"
LINES_FILE = "catalog/items.jsonl"  # of bundles that were exported before a catalog was columns


class _Prompt(msgspec.Struct):
    prefix_ids: list[int] = []
    suffix_ids: list[int] = []
    separator: str = ""
    history_length: int = PromptOptions().history_length
    prefix: str = ""  # of text bundles
    suffix: str = ""


class _Sketch(msgspec.Struct):
    """What all manifests there have been call alike, at the defaults of `export`."""

    kind: str = "items"
    precision: str = "fp32"
    scoring: str = "full"
    max_top_k: int = 200
    draft: Any = None
    prompt: _Prompt = msgspec.field(default_factory=_Prompt)
    prompt_options: Any = None
    files: dict[str, Any] = {}


def export_command(manifest: Path) -> str:
    """The command that writes a bundle again in its place; what only its owner has is in capitals."""
    sketch, usual, titles = _Sketch(), _Sketch(), False
    with suppress(OSError, *DAMAGED):
        sketch = msgspec.json.decode(manifest.read_bytes(), type=_Sketch)
        titles = _has_titles(manifest.parent)
    words = ["specbeam export --text --target TARGET" if sketch.kind == "text" else "specbeam export --target TARGET"]
    words += ["--draft DRAFT"] * (sketch.draft is not None) + ["--catalog CATALOG"] * (sketch.kind != "text")
    words += ["--items ITEMS"] * titles + _prompt(sketch)
    for name in ("scoring", "max_top_k", "precision"):
        if (value := getattr(sketch, name)) != getattr(usual, name):
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    if sketch.files and not any(file.startswith("target/checkpoint/") for file in sketch.files):
        words.append("--no-checkpoints")
    return " ".join([*words, f"--output {shlex.quote(str(manifest.parent))} --overwrite"])


def _has_titles(bundle: Path) -> bool:
    if (bundle / LINES_FILE).is_file():
        return b'"title":"' in (bundle / LINES_FILE).read_bytes()
    with suppress(CatalogError):
        return "title.bytes" in (arrays := map_arrays(bundle / CATALOG_FILE)) and len(arrays["title.bytes"]) > 0
    return False


def _prompt(sketch: _Sketch) -> list[str]:
    """The options of a bundle's prompt. Older bundles say only what came of them: then PROMPT stands for the text."""
    with suppress(msgspec.ValidationError):
        return list(map(shlex.quote, msgspec.convert(sketch.prompt_options, PromptOptions).arguments()))
    prompt, words = sketch.prompt, []
    if prompt.suffix_ids or prompt.separator or len(prompt.prefix_ids) > 1 or prompt.prefix or prompt.suffix:
        words.append("--prompt PROMPT")
    if prompt.separator:
        words.append(f"--separator {shlex.quote(prompt.separator)}")
    if prompt.history_length != _Prompt().history_length:
        words.append(f"--history-length {prompt.history_length}")
    return words
