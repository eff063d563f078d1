"""inspect: whether the files of bundles and pools are as written, and what is in pools."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from commands import bad, good, run
from specbeam.catalog.files import sha256
from specbeam.catalog.histories.requests import HistoryRequest
from specbeam.engines.bundle.checklist import Checklist, bundle_checklist
from specbeam.engines.bundle.items import Bundle
from specbeam.evaluate.tune import tune
from specbeam.pools.inspect import pool_checklist
from specbeam.pools.items.build import build_item_pool
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.read import Text
from specbeam.runtime import EngineChoice
from tiny_bundle import ENGINE, Tiny


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


DAMAGES = (flip, shorten, lengthen, Path.unlink)
SEALED = ("manifest.json", "pool.json")


def damaged(checklist: Checklist) -> list[str]:
    return [damage.file for damage in checklist.run().damaged]


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def pools(tmp_path: Path) -> dict[str, Path]:
    """A pool of each kind."""
    texts = [Text("u1", [1, 2, 3]), Text("u2", [1, 2, 4])]
    build_text_pool(texts, tmp_path / "text", tokenizer_sha256="abc", reach=6, groups={"u1": "x", "u2": "y"})
    histories = [HistoryRequest("u1", ["1", "2", "3"], 1), HistoryRequest("u2", ["2", "3"], 2)]
    build_item_pool(histories, tmp_path / "items")
    return {"text": tmp_path / "text", "items": tmp_path / "items"}


def test_every_file_of_a_bundle_is_looked_at(bundle: Path) -> None:
    tune(bundle, [["1", "2"], ["3"]], top_k=(1,), engine=EngineChoice(threads=1))
    (tuning,) = (bundle / "engines" / ENGINE).glob("tuning-*.json")
    whole = bundle_checklist(bundle).run()
    assert (whole.damaged, whole.unlisted) == ((), ())
    names = files_of(bundle)
    assert whole.files == len(names)
    for i, name in enumerate(names):
        kept = (bundle / name).read_bytes()
        damage = flip if name.endswith(".json") else DAMAGES[i % len(DAMAGES)]
        damage(bundle / name)
        found = bundle_checklist(bundle).run()
        assert [one.file for one in found.damaged] == [name]
        assert str(bundle / name) in found.damaged[0].fault
        assert found.damaged[0].remedy in found.damaged[0].fault
        assert found.unlisted == ()
        (bundle / name).write_bytes(kept)
    assert bundle_checklist(bundle).run() == whole
    assert tuning.relative_to(bundle).as_posix() in names


def test_every_damage_to_a_file_is_seen(bundle: Path) -> None:
    path = bundle / "target/model.onnx"
    for damage in DAMAGES:
        kept = path.read_bytes()
        damage(path)
        assert damaged(bundle_checklist(bundle)) == ["target/model.onnx"]
        path.write_bytes(kept)
    path.unlink()
    for other in (Path.mkdir, lambda path: path.symlink_to("/etc/hostname"), lambda path: path.symlink_to("nowhere")):
        other(path)
        assert damaged(bundle_checklist(bundle)) == ["target/model.onnx"]
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_file_that_cannot_be_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, told: object) -> str:
        if path.name == "trie.safetensors":
            raise OSError(5, "Input/output error", str(path))
        return sha256(path)

    monkeypatch.setattr("specbeam.engines.bundle.checksums.sha256", fails)
    flip(bundle / "target/model.onnx")  # the rest is looked at, too
    found = {damage.file: damage for damage in bundle_checklist(bundle).run().damaged}
    assert list(found) == ["catalog/trie.safetensors", "target/model.onnx"]
    assert "cannot be read: [Errno 5] Input/output error" in found["catalog/trie.safetensors"].fault


def test_damage_is_told_with_what_to_do_and_is_the_exit_status(bundle: Path) -> None:
    assert "all are as they were written" in good("inspect", bundle, "--checksums").stdout
    flip(bundle / "catalog/items.safetensors")
    shorten(bundle / "engines" / ENGINE / "draft/model.onnx")
    result = run("inspect", bundle, "--checksums")
    assert result.exit_code == 1
    assert f"engine     {ENGINE}" in result.stdout  # the rest is shown
    assert ": 2 damaged. Copy these again from where they came from, or do as is said:\n" in result.stdout
    assert f"  {bundle}/catalog/items.safetensors is damaged: its SHA-256 is " in result.stdout
    assert f"Write it again with: specbeam build-engine {bundle} --backend onnxruntime --device cpu " in result.stdout
    result = run("inspect", bundle, "--checksums", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert list(found["engines"]) == [ENGINE]
    assert [damage["file"] for damage in found["checksums"]["damaged"]] == [
        "catalog/items.safetensors", f"engines/{ENGINE}/draft/model.onnx",
    ]  # fmt: skip
    assert all(damage["remedy"].startswith("specbeam ") for damage in found["checksums"]["damaged"])
    assert "checksums" not in json.loads(good("inspect", bundle, "--json").stdout)


def test_files_that_nothing_lists_are_told_of_and_are_no_damage(bundle: Path) -> None:
    strange = ["engines/half-built/target/model.onnx", "notes \udcff.txt", "target/model.onnx.bak"]
    for name in (*strange, ".hidden", ".git/config", "engines/.x.specbeam-part/model.onnx"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).touch()
    told = good("inspect", bundle, "--checksums").stdout
    assert "  target/model.onnx.bak: is listed nowhere, and nothing reads it\n" in told
    found = json.loads(good("inspect", bundle, "--checksums", "--json").stdout)["checksums"]
    assert (found["unlisted"], found["damaged"]) == (strange, [])
    assert ".hidden" not in told


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"schema_version": 2}'])
def test_a_damaged_list_is_told_of(bundle: Path, content: bytes) -> None:
    flip(bundle / "target/model.onnx")
    (bundle / "engines" / ENGINE / "engine.json").write_bytes(content)
    found = bundle_checklist(bundle).run()
    assert [one.file for one in found.damaged] == [f"engines/{ENGINE}/engine.json", "target/model.onnx"]
    assert found.unlisted == ()  # what the damaged list had is not known
    (bundle / "manifest.json").write_bytes(content)
    for arguments in ([], ["--json"]):
        result = run("inspect", bundle, "--checksums", *arguments)
        assert result.exit_code == 1
        assert f"{bundle}/manifest.json" in result.stdout
    assert [one["file"] for one in json.loads(result.stdout)["checksums"]["damaged"]] == ["manifest.json"]
    assert "is not a bundle" in bad("inspect", bundle / "target", "--checksums")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"schema_version": 1, "engine": 3}'])
@pytest.mark.parametrize("engines", [0, 1, 2])
def test_a_damaged_record_of_the_default_engine(bundle: Path, content: bytes, engines: int) -> None:
    if engines == 2:
        shutil.copytree(bundle / "engines" / ENGINE, bundle / "engines" / "onnxruntime-cpu-fp16")
    if engines == 0:
        shutil.rmtree(bundle / "engines" / ENGINE)
    (bundle / "engines/default.json").write_bytes(content)
    told = good("inspect", bundle).stdout
    assert f"default    {bundle}/engines/default.json is damaged" in told
    assert f"Write it again with: specbeam build-engine {bundle} " in told
    assert told.count("  engine     ") == engines
    found = json.loads(good("inspect", bundle, "--json").stdout)
    assert found["default_error"] in told
    assert found["default_engine"] == (ENGINE if engines == 1 else None)
    assert damaged(bundle_checklist(bundle)) == ["engines/default.json"]
    if engines:
        remedy = bundle_checklist(bundle).run().damaged[0].remedy
        good(*remedy.split()[1:])  # as it is said
        assert damaged(bundle_checklist(bundle)) == []
        assert json.loads(good("inspect", bundle, "--json").stdout)["default_error"] is None


def test_progress_counts_the_bytes_that_are_read(tiny: Tiny, pools: dict[str, Path]) -> None:
    for checklist in (bundle_checklist(tiny.bundle), *map(pool_checklist, pools.values())):
        read: list[int] = []
        found = checklist.run(read.append)
        assert sum(read) == checklist.bytes == found.bytes > 0
    listed = {*Bundle.open(tiny.bundle).manifest.files}
    assert bundle_checklist(tiny.bundle).bytes > sum((tiny.bundle / name).stat().st_size for name in listed)


# --- pools


def test_what_is_in_a_pool(pools: dict[str, Path]) -> None:
    text, items = (good("inspect", path).stdout for path in pools.values())
    assert text.startswith(f"{pools['text']}: a pool of texts, SpecBeam ")
    assert "texts      2 of 6 tokens" in text
    assert "    x: 1 texts, 3 tokens" in text
    assert "histories  2, with 5 purchases of 3 items" in items
    assert "groups     none" in items
    os.utime(pools["items"] / "pool.json", (0, 86400 * 365))
    assert "written 197" in good("inspect", pools["items"]).stdout
    found = json.loads(good("inspect", pools["items"], "--json").stdout)
    assert (found["pool"]["kind"], found["pool"]["items"], found["written"][:3]) == ("items", 3, "197")


@pytest.mark.parametrize("kind", ["text", "items"])
def test_every_file_of_a_pool_is_looked_at(pools: dict[str, Path], kind: str) -> None:
    pool = pools[kind]
    names = files_of(pool)
    assert pool_checklist(pool).run().files == len(names)
    for i, name in enumerate(names):
        kept = (pool / name).read_bytes()
        (flip if name == "pool.json" else DAMAGES[i % len(DAMAGES)])(pool / name)
        assert damaged(pool_checklist(pool)) == [name]
        result = run("inspect", pool, "--checksums")
        assert result.exit_code == 1
        assert name in result.stdout
        assert "specbeam build-pool " in result.stdout
        (pool / name).write_bytes(kept)
    (pool / "mine.txt").touch()
    told: dict[str, Any] = json.loads(good("inspect", pool, "--checksums", "--json").stdout)
    assert told["checksums"] == {
        "listed": True, "files": len(names), "bytes": pool_checklist(pool).bytes, "damaged": [],
        "unlisted": ["mine.txt"],
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"kind": "songs"}', b'{"kind": 3}', b'{"kind": "items"}'])
def test_a_pool_whose_list_is_damaged(pools: dict[str, Path], content: bytes) -> None:
    (pools["text"] / "pool.json").write_bytes(content)
    message = bad("inspect", pools["text"])
    result = run("inspect", pools["text"], "--checksums", "--json")
    assert result.exit_code == 1
    (damage,) = json.loads(result.stdout)["checksums"]["damaged"]
    assert " ".join(damage["fault"].split()) in message
    assert damage["remedy"].startswith("specbeam build-pool ")
