"""Packages that only some verbs need, and the command that installs them from where the user stands."""

import re
import shlex
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

DISTRIBUTION = "specbeam"
# Which extra of pyproject.toml brings a module that may be missing.
EXTRAS = {
    "onnxruntime": "cpu", "torch": "export", "transformers": "export", "peft": "export", "sentencepiece": "export",
    "onnx": "quantize", "onnxscript": "export", "onnx_ir": "quantize", "polygraphy": "tensorrt",
    "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx", "tokenizers": "text", "pyarrow": "parquet",
    "altair": "explain", "vl_convert": "explain", "accelerate": "align", "sklearn": "groups", "scipy": "groups",
    "starlette": "serve", "uvicorn": "serve", "h11": "serve", "prometheus_client": "serve",
    "ray": "ray",
}  # fmt: skip


def install(extra: str, only: str = "") -> str:
    """The command that installs what an extra of this package needs, e.g. `pip install 'pyarrow>=18'`.

    only: what the one package's name begins with, of several.

    It names the extra's packages, and not this distribution: no index is asked for a project of this name, whichever
    that would be, and nothing that is installed is replaced. Where this package is not installed at all, it is the
    command that installs it from its sources, in the folder where they lie.
    """
    try:
        wanted = [name for name in declared().get(extra, []) if name.startswith(only)]
    except PackageNotFoundError:
        return f"pip install {shlex.quote(f'{Path(__file__).resolve().parent.parent}[{extra}]')}"
    if not wanted:
        raise ValueError(f"{DISTRIBUTION} has no extra {extra!r}")
    return f"pip install {' '.join(map(shlex.quote, wanted))}"


def declared() -> dict[str, list[str]]:
    """What every extra of this package needs, e.g. {"parquet": ["pyarrow>=18"]}; under "", what it always needs.

    Raises `PackageNotFoundError` where this package is not installed.
    """
    found: dict[str, list[str]] = {}
    for entry in requires(DISTRIBUTION) or []:
        wanted, _, marker = entry.partition(";")
        extra = re.search(r"""extra == ["']([^"']+)["']""", marker)
        found.setdefault(extra[1] if extra else "", []).append(wanted.strip())
    return found


def install_module(module: str) -> str:
    """As `install`, for the extra that brings a module of `EXTRAS`."""
    return install(EXTRAS[module])
