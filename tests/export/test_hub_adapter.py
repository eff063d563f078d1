"""Adapters whose base model is a hub's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from adapter_cases import BOTH, IDENTIFIERS, make_adapter
from hub_cases import Hub, Model, commit_of, running_hub, use_cache
from specbeam.align.drafts import TargetLayers, find_draft
from specbeam.align.training.configs import find_config
from specbeam.align.training.sources import FreshModel, LoraModel, Pretrained, find_source
from specbeam.catalog.errors import ExportError, OptionError
from specbeam.catalog.items import Catalog
from specbeam.export.checkpoint import Checkpoint
from specbeam.export.local import local
from specbeam.export.quiet import quiet
from tiny_models import tiny_catalog, tiny_checkpoint


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        use_cache(monkeypatch, tmp_path / "cache", url=running.url)
        yield running


def rename_base(adapter: Path, name: str, revision: str | None = None) -> None:
    file = adapter / "adapter_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"base_model_name_or_path": name, "revision": revision}))


@pytest.mark.parametrize("adapter_is_hub_s", [False, True], ids=["folder", "hub"])
@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_base_model_is_fetched(hub: Hub, tmp_path: Path, adapter_is_hub_s: bool, revision: str | None) -> None:
    adapter, trained = make_adapter(tmp_path, modules_to_save=BOTH)
    rename_base(adapter, "org/base", revision)
    hub.models |= {"org/base": Model(tmp_path / "base", ("main", "v1")), "me/adapter": Model(adapter)}
    told: list[str] = []
    found = Checkpoint.open(local("me/adapter" if adapter_is_hub_s else adapter, "target", progress=told.append))
    base, main = f"org/base{f'@{revision}' if revision else ''}", "main"
    assert told == ["fetching me/adapter"] * adapter_is_hub_s + [f"fetching its base model {base}"]
    assert found.origins == {
        **({"checkpoint": f"me/adapter@{commit_of('me/adapter@main')}"} if adapter_is_hub_s else {}),
        "base": f"org/base@{commit_of(f'org/base@{revision or main}')}",
    }
    tokens = torch.tensor([[2, 5, 10, 11, 20, 27]])
    with torch.inference_mode():
        got, expected = found.load("fp32", IDENTIFIERS)(input_ids=tokens).logits, trained(input_ids=tokens).logits
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_base_model_may_have_a_name_alone(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As adapters of the first models have it: there is an organization to none of them. A folder wins here, too."""
    adapter, _ = make_adapter(tmp_path, modules_to_save=BOTH)
    rename_base(adapter, "gpt2")
    with pytest.raises(
        ExportError, match=r"names the base model 'gpt2', .* gpt2 is no folder here, and http.* has no model gpt2"
    ):
        local(adapter, "target")
    (tmp_path / "base").rename(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    assert Checkpoint.open(local(adapter, "target")).base == Path("gpt2")


@pytest.mark.parametrize(
    ("name", "revision", "why"),
    [
        ("/models/base", None, "It is a path. Put the base model on this machine"),
        ("a/b/c", None, "It is a path"),
        ("my base", None, "it is no hub's model: "),
        ("org/base", "../../x", "it is no hub's model: '../../x' is no branch"),
    ],
)
def test_base_models_that_are_nowhere(hub: Hub, tmp_path: Path, name: str, revision: str | None, why: str) -> None:
    adapter, _ = make_adapter(tmp_path, modules_to_save=BOTH)
    rename_base(adapter, name, revision)
    for opened in (lambda: local(adapter, "target"), lambda: Checkpoint.open(adapter)):
        with pytest.raises(ExportError) as caught:
            opened()
        assert f"names the base model {name!r}, which is not a local directory with a config.json. " in str(
            caught.value
        )
        assert why in str(caught.value)
    assert hub.asked == []


def test_what_is_trained_or_aligned_may_be_a_hub_s(hub: Hub, tmp_path: Path) -> None:
    hub.models["org/model"] = Model(tiny_checkpoint(tmp_path / "served"))
    tokenizer = FreshModel("1x32", "org/model").vocabulary  # type: ignore[arg-type]
    assert "model.safetensors" not in hub.downloaded("org/model")
    assert find_config("org/model", 8).hidden_size == 32
    folder = local("org/model", "target")
    assert tokenizer == folder
    assert find_source(None, "org/model", None, None) == Pretrained(folder) == Pretrained("org/model")  # type: ignore[arg-type]
    assert find_source("1x32", None, None, "org/model") == FreshModel("1x32", folder)
    assert find_source(None, "org/model", 2, None) == LoraModel(folder, 2)
    assert find_draft("org/model", folder, None, False) == Pretrained(folder)
    assert TargetLayers("org/model", 1) == TargetLayers(folder, 1)  # type: ignore[arg-type]
    assert find_draft("./org/model", folder, None, False) == FreshModel("./org/model", folder)  # a shape, or nothing
    with pytest.raises(OptionError, match="a hub's org/name"):
        find_config("model", 8)


def test_an_adapter_that_is_trained_on_a_hub_s_model_names_its_commit(hub: Hub, tmp_path: Path) -> None:
    hub.models["org/model"] = Model(tiny_checkpoint(tmp_path / "served"))
    catalog = Catalog.load(tiny_catalog(tmp_path / "index.json"), None)
    source: Any = find_source(None, "org/model", 2, None)
    tokenizer = source.tokenizer(catalog, "")
    output = tmp_path / "adapter"
    with quiet():
        source.save(source.model(tokenizer, catalog, 32, 0), tokenizer, output)
    config = json.loads((output / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/model", commit_of("org/model@main"))
    assert Checkpoint.open(output).origins == {"base": f"org/model@{commit_of('org/model@main')}"}
