"""The tiny bundle that tests share (see conftest.py), and how to change a copy of it as if it had been written so."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from specbeam.engines.bundle import MANIFEST, Bundle, Manifest
from specbeam.engines.facts import EngineFacts
from specbeam.engines.sealed import sealed

ENGINE = "onnxruntime-cpu-fp32"


@dataclass(frozen=True)
class Tiny:
    """A pair of tiny Llamas for a catalog of 40 items, some of which share an identifier.

    Their context of 32 positions holds <s> and nine items; the bundle's history length is 12.
    """

    target: Path
    draft: Path
    index: Path
    items: Path
    bundle: Path  # with an engine; never written to: tests that change one take the fixture `bundle`
    export_output: str
    build_output: str

    fits = 9  # items

    @property
    def item_ids(self) -> list[str]:
        return list(json.loads(self.index.read_text()))


def edit_manifest(bundle: Path, **changes: Any) -> None:
    manifest = asdict(Bundle.open(bundle).manifest) | changes
    (bundle / MANIFEST).write_bytes(sealed(Manifest(**manifest)))


def edit_engine(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` edit engine.json's content in place."""
    path = bundle / "engines" / ENGINE / "engine.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_bytes(sealed(msgspec.convert(content, EngineFacts)))
