"""Checkpoints of a hub: which files are fetched, from where, and what a manifest says of them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from commands import bad, good
from hub_cases import TOKEN, Hub, Model, cached, commit_of, running_hub, use_cache
from specbeam.catalog.errors import ExportError
from specbeam.export import export_bundle
from specbeam.export.checkpoint import Checkpoint
from specbeam.export.hub import origin
from specbeam.export.local import local
from specbeam.export.text import export_text
from specbeam.export.trained import TRAINING
from tiny_models import (
    identifier_tokens,
    make_model,
    make_tokenizer,
    pieces_checkpoint,
    tiny_checkpoint,
)

IDENTIFIERS = identifier_tokens()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and an empty cache."""
    folder = tiny_checkpoint(tmp_path / "served")
    (folder / TRAINING).write_text('{"prompt": {"history_length": 3}}')
    for name in ("pytorch_model.bin", "modeling.py", "consolidated.safetensors", "onnx/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    with running_hub() as running:
        use_cache(monkeypatch, tmp_path / "cache", url=running.url)
        running.models["org/model"] = Model(folder, ("main", "v1", "refs-1.0"))
        yield running


def same_weights(got: PreTrainedModel, expected: PreTrainedModel) -> bool:
    theirs = dict(expected.named_parameters())
    return all(torch.equal(weight, theirs[name]) for name, weight in got.named_parameters())


def test_what_is_read_is_fetched_once_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    told: list[str] = []
    bars: list[tuple[str, int, int]] = []
    folder = local("org/model", "target", progress=told.append, bar=lambda *bar: bars.append(bar))
    size = (tmp_path / "served" / "model.safetensors").stat().st_size
    assert told == ["fetching org/model"]
    assert bars == [("  fetching org/model", size, size)]  # of weights alone, which take the time
    assert hub.downloaded("org/model") == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        TRAINING,
    ]  # fmt: skip
    assert origin(folder) == f"org/model@{commit_of('org/model@main')}"
    found, expected = (Checkpoint.open(each).load("fp32", IDENTIFIERS) for each in (folder, tmp_path / "served"))
    assert same_weights(found, expected)
    hub.asked.clear()
    assert local("org/model", "target") == folder
    assert hub.downloaded("org/model") == []
    assert local("org/model@v1", "target") != folder


def test_a_manifest_says_where_its_models_are_from(hub: Hub, tmp_path: Path, index: Path, quick_exports: None) -> None:
    shutil.copytree(tmp_path / "served", tmp_path / "draft")
    told: list[str] = []
    bundle = tmp_path / "bundle"
    manifest = export_bundle("org/model@v1", tmp_path / "draft", index, None, bundle, progress=told.append)
    assert told[0] == "fetching org/model@v1"
    assert manifest.target.checkpoint == f"org/model@{commit_of('org/model@v1')}"
    assert manifest.draft is not None
    assert manifest.draft.checkpoint is None
    assert manifest.prompt.history_length == 3  # as it was trained: its record came along
    written = json.loads((bundle / "manifest.json").read_bytes())
    assert written["target"]["checkpoint"] == manifest.target.checkpoint
    assert "checkpoint" not in written["draft"]
    assert "base" not in written["target"]
    for file in (bundle / "manifest.json", *bundle.rglob("checkpoint/*.json")):
        assert str(tmp_path).encode() not in file.read_bytes(), file
    shown = [line for line in good("inspect", bundle).output.splitlines() if line.startswith(("  target", "  draft"))]
    assert shown[0].endswith(f", from org/model@{commit_of('org/model@v1')}")
    assert "from" not in shown[1]


def test_the_command_takes_names(hub: Hub, tmp_path: Path, index: Path, quick_exports: None) -> None:
    done = good("export", "--target", "org/model", "--draft", "org/model@v1", "--catalog", index, "-o", tmp_path / "b")
    assert "  fetching org/model\n  fetching org/model@v1\n" in done.stderr
    told = json.loads(good("inspect", tmp_path / "b", "--json").output)["manifest"]
    assert told["draft"]["checkpoint"] == f"org/model@{commit_of('org/model@v1')}"


def test_an_output_that_is_there_is_told_of_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    made = ("--output", tmp_path / "there")
    for verb in (("export", "--target", "org/model", "--catalog", "c"), ("train", "--from", "org/model", "--data", "d"),
                 ("align", "--target", "org/model", "--draft", "1x32", "--data", "d")):  # fmt: skip
        assert "exists already" in bad(*verb, *made)
    assert hub.asked == []


def test_a_text_bundle_s_model_may_be_a_hub_s(hub: Hub, tmp_path: Path) -> None:
    hub.models["org/writer"] = Model(tiny_checkpoint(tmp_path / "writer", kind="qwen3"))
    (tmp_path / "writer" / "tokenizer.json").write_text("{")
    with pytest.raises(ExportError, match=r"models--org--writer/snapshots/[0-9a-f]{40}/tokenizer.json"):
        export_text("org/writer", tmp_path / "bundle")


def test_a_folder_of_that_name_wins(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("org/model", "org/model@v1", "gpt2"):
        (tmp_path / name).mkdir(parents=True)
        assert local(name, "target") == Path(name)
    assert hub.asked == []


def test_what_is_refused_is_refused_before_its_weights_come(hub: Hub, tmp_path: Path) -> None:
    config = tmp_path / "served" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ExportError, match="BertForMaskedLM"):
        local("org/model", "target")
    assert "model.safetensors" not in hub.downloaded("org/model")


@pytest.mark.parametrize("file", ["tokenizer.model", "spiece.model"])
def test_a_tokenizer_of_sentencepiece_alone(hub: Hub, tmp_path: Path, file: str) -> None:
    folder = pieces_checkpoint(tmp_path / "pieces")
    (folder / "tokenizer.model").rename(folder / file)
    hub.models["org/pieces"] = Model(folder)
    fetched = local("org/pieces", "target")
    assert {file, "added_tokens.json"} <= set(hub.downloaded("org/pieces"))
    if file == "tokenizer.model":
        assert Checkpoint.open(fetched).tokenizer("user likes<a_1>")["input_ids"][-1] == 61


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_shards_in_bf16(hub: Hub, tmp_path: Path, tied: bool) -> None:
    """The files that the index names, and no others."""
    folder, tokenizer = tmp_path / "shards", make_tokenizer(IDENTIFIERS)
    model = make_model(rows=len(tokenizer), tied=tied).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="10KB")
    tokenizer.save_pretrained(folder)
    shards = sorted(file.name for file in folder.glob("*.safetensors"))
    (folder / "model.safetensors-of-old.safetensors").write_bytes(b"not wanted")
    hub.models["org/shards"] = Model(folder)
    found = Checkpoint.open(local("org/shards", "target")).load("bf16", IDENTIFIERS)
    assert same_weights(found, model)
    assert found.config.tie_word_embeddings == tied
    assert len(shards) > 1
    assert [name for name in hub.downloaded("org/shards") if name.endswith(".safetensors")] == shards


def test_without_a_network_what_the_cache_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `hf download`, or from_pretrained, or a copy of another machine's cache leaves it."""
    cache = tmp_path / "cache"
    use_cache(monkeypatch, cache)
    served = tiny_checkpoint(tmp_path / "served")
    commit = cached(cache, "org/model", served)
    old = cached(cache, "org/model", served, "v1")
    for name, expected in {"org/model": commit, "org/model@v1": old, f"org/model@{old}": old}.items():
        folder = local(name, "target")
        assert origin(folder) == f"org/model@{expected}"
        Checkpoint.open(folder)
    with pytest.raises(ExportError) as caught:
        local("org/model@v2", "target")
    assert f"is not (or not whole) in the cache {cache}; HF_HUB_OFFLINE forbids" in str(caught.value)
    assert "`hf download org/model --revision v2`" in str(caught.value)


def test_a_hub_that_is_down_is_not_needed_for_what_the_cache_holds(hub: Hub) -> None:
    folder = local("org/model", "target")
    hub.status = 503
    assert local("org/model", "target") == folder


def test_a_login_is_the_hub_s_own(hub: Hub, tmp_path: Path) -> None:
    hub.models["org/private"] = Model(tmp_path / "served", private=True)
    with pytest.raises(ExportError, match="hf auth login"):
        local("org/private", "target")
    (tmp_path / "token").write_text(TOKEN)
    Checkpoint.open(local("org/private", "target"))


def test_other_folders_have_no_origin(tmp_path: Path) -> None:
    commit = "0" * 40
    assert origin(Path("/cache/models--org--a-b.c/snapshots") / commit) == f"org/a-b.c@{commit}"
    assert origin(Path("/cache/models--gpt2/snapshots") / commit) == f"gpt2@{commit}"
    for other in ("/target", f"/cache/datasets--org--x/snapshots/{commit}", "/cache/models--org--x/snapshots/main"):
        assert origin(Path(other)) is None
