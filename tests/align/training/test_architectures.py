"""Checkpoints whose modules are not called as Llama's are: trained whole, and refused where names are needed."""

from pathlib import Path

import pytest

from architecture_cases import form
from specbeam.align.drafts import TargetLayers
from specbeam.align.training.sources import LoraModel, Pretrained
from specbeam.catalog.errors import OptionError
from specbeam.catalog.items import Catalog
from tiny_models import tiny_catalog


def test_whole_models_of_any_names(tmp_path: Path) -> None:
    folder, catalog = form("GPT-2").save(tmp_path / "target"), Catalog.load(tiny_catalog(tmp_path / "index.json"), None)
    source = Pretrained(folder)
    model = source.model(source.tokenizer(catalog, ""), catalog, 64, 0)
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert all(weight.requires_grad for weight in model.parameters())


def test_adapters_and_layers_are_of_llamas_names(tmp_path: Path) -> None:
    folder, catalog = form("GPT-2").save(tmp_path / "target"), Catalog.load(tiny_catalog(tmp_path / "index.json"), None)
    lora = LoraModel(folder, 4)
    tokenizer = lora.tokenizer(catalog, "")
    with pytest.raises(OptionError, match=r"a GPT2LMHeadModel, which has no embed_tokens, q_proj, .*leave --lora out"):
        lora.model(tokenizer, catalog, 64, 0)
    with pytest.raises(OptionError, match=r"layers cannot be taken one by one.*--draft"):
        TargetLayers(folder, 1, False).model(tokenizer, catalog, 64, 0)
