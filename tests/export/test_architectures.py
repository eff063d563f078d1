"""Architectures with tiny random weights: each agrees with its model and with `generate`, or is refused with why.

What differs from one to the next (masks, positions, caches, heads) is tried in the module that graphs are traced from;
graphs are traced of those that have nodes which the others lack (`benchmarks/quality/architectures.py`: of all).
"""

from pathlib import Path

import pytest

from architecture_cases import FORMS, Form, equals_generate, form, untraced
from specbeam.catalog.errors import SpecBeamError
from specbeam.engines.build import build_engine
from specbeam.export import export_bundle
from tiny_models import tiny_catalog

TRACED = (
    "Gemma 2",
    "gpt-oss",
    "Phi-3, long RoPE",
    "OPT",
    "Falcon",
    "Qwen2-MoE",
    "Qwen2, windows in one layer",
    "Cohere",
)


@pytest.mark.parametrize("form", [form for form in FORMS if not form.refused], ids=lambda form: form.name)
def test_it_agrees_with_its_model_and_with_generate(tmp_path: Path, form: Form) -> None:
    target, index = form.save(tmp_path / "target"), tiny_catalog(tmp_path / "index.json")
    with untraced():
        export_bundle(target, None, index, None, tmp_path / "bundle")
    equals_generate(tmp_path / "bundle", "torch-cpu-fp32")


@pytest.mark.parametrize("form", [form for form in FORMS if form.refused], ids=lambda form: form.name)
def test_it_is_refused(tmp_path: Path, form: Form) -> None:
    target, index = form.save(tmp_path / "target"), tiny_catalog(tmp_path / "index.json")
    with untraced(), pytest.raises(SpecBeamError, match=form.refused):
        export_bundle(target, None, index, None, tmp_path / "bundle")


@pytest.mark.parametrize("name", TRACED)
def test_its_graph_does(tmp_path: Path, name: str, quick_exports: None) -> None:
    target, index = form(name).save(tmp_path / "target"), tiny_catalog(tmp_path / "index.json")
    draft = form("Llama").save(tmp_path / "draft", num_hidden_layers=1)
    export_bundle(target, draft, index, None, tmp_path / "bundle")
    build_engine(tmp_path / "bundle", threads=1)
    assert equals_generate(tmp_path / "bundle", "onnxruntime-cpu-fp32") > 0
