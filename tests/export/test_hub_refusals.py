"""Names and hubs that do not give a checkpoint: what was got, what was expected, what to do."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from commands import bad
from hub_cases import Model, cached, running_hub, use_cache
from specbeam.catalog.errors import DiskFullError, ExportError, OptionError
from specbeam.export import hub as fetching
from specbeam.export.hub_names import HubName, hub_name
from specbeam.export.local import local
from tiny_models import tiny_checkpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubName("org/name")),
        ("Qwen/Qwen3-0.6B", HubName("Qwen/Qwen3-0.6B")),
        ("org/name@v1.0", HubName("org/name", "v1.0")),
        ("org/name@refs/pr/3", HubName("org/name", "refs/pr/3")),
        ("org/name@a@b", HubName("org/name", "a@b")),
    ],
)
def test_names(text: str, expected: HubName) -> None:
    assert hub_name(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["./org/name", "/org/name", "../name", "..x", "~/name", "org/name/", "a/b/c", "a/b/c@main", "out/model.safetensors",
     "out/config.json", "org/x.gguf"],
)  # fmt: skip
def test_what_looks_like_a_path_is_one(text: str) -> None:
    with pytest.raises(ExportError) as caught:
        local(text, "target")
    assert f"There is no folder {text}; expected a checkpoint's" in str(caught.value)
    assert ("without quotes" in str(caught.value)) == text.startswith("~")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpt2", "it names no organization"),
        ("gpt2@main", "it names no organization"),
        ("@main", "it names no organization"),
        ("my org/name", "alphanumeric"),
        ("org/na me", "alphanumeric"),
        ("org/name.", "alphanumeric"),
        ("org/na--me", "-- or .."),
        ("org/name.git", "'.git'"),
        ("org/" + "x" * 97, "maximum length"),
        ("org/name@", "nothing stands behind @"),
        ("org/name@v 1", "'v 1' is no branch"),
        ("org/name@../../x", "'../../x' is no branch"),
        ("org/name@/x", "'/x' is no branch"),
        ("org/name@x\n", "is no branch"),
        ("org/name@a*", "'a*' is no branch"),
    ],
)
def test_names_that_cannot_be(text: str, why: str) -> None:
    with pytest.raises(ExportError) as caught:
        local(text, "target")
    message = str(caught.value)
    assert f"There is no folder {text!r}, and it is no hub's model: " in message
    assert why in message
    assert "org/name@revision" in message


@pytest.mark.parametrize("value", [None, 3, b"org/name", ""])
def test_what_is_no_text_is_no_name(value: Any) -> None:
    with pytest.raises(OptionError, match=r"target is .*, expected a path"):
        local(value, "target")


def test_the_command_tells_a_path_from_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for typed in ("./org/name", "org/name/", "../org"):
        message = bad("export", "--target", typed, "--catalog", "index.json", "-o", "b")
        assert f"There is no folder {typed}; expected" in message


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any], object]) -> str:
    served = tiny_checkpoint(tmp_path / "served")
    with running_hub() as hub:
        use_cache(monkeypatch, tmp_path / "cache", url=hub.url)
        hub.models["org/model"] = Model(served)
        change(hub)
        with pytest.raises(ExportError) as caught:
            local(name, "target")
        return str(caught.value).replace(hub.url, "HUB")


def pickled(hub: Any) -> None:
    folder = hub.models["org/model"].folder
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def torn(hub: Any) -> None:
    (hub.models["org/model"].folder / "config.json").unlink()


def broken_index(hub: Any) -> None:
    """Of names that would fetch everything."""
    folder = hub.models["org/model"].folder
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "*", "b": "../x"}}))


def replaced(**settings: Any) -> Callable[[Any], None]:
    def change(hub: Any) -> None:
        hub.models["org/model"] = Model(hub.models["org/model"].folder, **settings)

    return change


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("org/modle", lambda hub: None, ["org/modle is no folder here, and HUB has no model org/modle, or it is pri",
                                         "hf auth login"]),
        ("org/model", replaced(private=True), ["or it is private", "hf auth login"]),
        ("org/model", replaced(gated=True), ["org/model is gated at HUB", "access at HUB/org/model", "hf auth login"]),
        ("org/model@v9", lambda hub: None, ["org/model has no revision 'v9' at HUB", "a branch, a tag or a commit"]),
        ("org/model", replaced(revisions=("other",)), ["org/model has no revision 'main'"]),
        ("org/model", lambda hub: setattr(hub, "status", 503), ["not whole) in the cache", "HUB answers 503"]),
        ("org/model", lambda hub: setattr(hub, "status", 403), ["HUB answers 403", "may not read it", "hf auth login"]),
        ("org/model", lambda hub: setattr(hub, "status", 401), ["HUB answers 401", "may be private", "hf auth login"]),
        ("org/model", lambda hub: setattr(hub, "status", 200), ["does not answer for org/model as", "HF_ENDPOINT"]),
        ("org/model", pickled, ["has no model.safetensors there", "of pytorch_model.bin, which are pickles",
                                "AutoModelForCausalLM.from_pretrained('org/model').save_pretrained"]),
        ("org/model", broken_index, ["has no model.safetensors there", "pytorch_model.bin"]),
        ("org/model", torn, ["has neither config.json nor adapter_config.json"]),
    ],
    ids=["typo", "private", "gated", "revision", "no main", "down", "forbidden", "unknown", "no hub", "pickles",
         "index", "no model"],
)  # fmt: skip
def test_what_a_hub_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any], object], parts: list[str]
) -> None:
    message = refusal(tmp_path, monkeypatch, name, change)
    assert [part for part in parts if part not in message] == [], message
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub() as hub:
        url = hub.url
    use_cache(monkeypatch, tmp_path / "cache", url=url)
    with pytest.raises(ExportError) as caught:
        local("org/model", "target")
    assert f"{url} cannot be reached: " in str(caught.value)
    assert "`hf download org/model`" in str(caught.value)


def test_a_cache_that_holds_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tiny_checkpoint(tmp_path / "served")
    (served / "model.safetensors").unlink()
    cached(tmp_path / "cache", "org/model", served)
    use_cache(monkeypatch, tmp_path / "cache")
    with pytest.raises(ExportError, match=r"has no model.safetensors in the cache .*, and HF_HUB_OFFLINE is set"):
        local("org/model", "target")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **settings: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    use_cache(monkeypatch, tmp_path / "cache", url="http://127.0.0.1:9")
    monkeypatch.setattr(fetching, "snapshot_download", full)
    with pytest.raises(DiskFullError) as caught:
        local("org/model", "target")
    assert f"No space left in the cache {tmp_path / 'cache'} while fetching org/model" in str(caught.value)
    assert "HF_HOME" in str(caught.value)


def test_a_library_that_fails_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **settings: object) -> str:
        raise RuntimeError("of some kind")

    use_cache(monkeypatch, tmp_path / "cache", url="http://127.0.0.1:9")
    monkeypatch.setattr(fetching, "snapshot_download", fails)
    with pytest.raises(ExportError, match=r"org/model could not be fetched from http.*RuntimeError: of some kind"):
        local("org/model", "target")
    assert huggingface_hub.snapshot_download is not fails
