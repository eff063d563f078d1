"""`specbeam catalog` and `specbeam model` against a server that listens on a socket's file."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn

from commands import bad, good, run
from specbeam.runtime import Recommender
from specbeam.runtime.options import Batching, EngineChoice
from specbeam.serve.http.admin import admin_app
from specbeam.serve.http.admin_socket import admin_listener
from specbeam.serve.models import Models
from specbeam.serve.opening import Opening
from tiny_bundle import Tiny

pytestmark = pytest.mark.services


@pytest.fixture
def models() -> Iterator[Models]:
    one = Models(opening=Opening(engine=EngineChoice(threads=1), batching=Batching(2)))
    yield one
    one.close(timeout=60)


@pytest.fixture(params=["file", "port"])
def where(models: Models, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where an admin interface listens."""
    place = str(tmp_path / "admin.sock") if request.param == "file" else "http://127.0.0.1:0"
    with admin_listener(place) as bound:
        port = bound.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(admin_app(models), log_config=None, lifespan="off", ws="none"))
        thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
        thread.start()
        yield place if request.param == "file" else f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(60)


def test_a_model_from_its_first_version_to_its_last(where: str, models: Models, tiny: Tiny, tmp_path: Path) -> None:
    assert "no model is loaded" in good("model", "status", "--admin", where).stdout
    loaded = good("model", "load", "shop", tiny.bundle, "--admin", where).stdout
    assert loaded == "shop: version 1 has catalog 1 (40 items)\n"
    good("model", "load", "shop", tiny.bundle, "--engine", "onnxruntime-cpu-fp32", "--admin", where)
    add, retire, titles = tmp_path / "add.jsonl", tmp_path / "retire.txt", tmp_path / "titles.jsonl"
    identifier = json.loads(tiny.index.read_text())["3"]
    add.write_text(json.dumps({"item": "new", "identifier": identifier, "title": "Brand new"}) + "\n")
    retire.write_text("0\n3\n")
    titles.write_text('{"item": "1", "title": "Other"}\n')
    options = ["--admin", where, "--add", add, "--retire", retire, "--titles", titles]
    assert good("catalog", "update", *options).stdout == "shop: version 1 has catalog 2 (39 items)\n"
    catalog = models.named().edition.recommender.catalog
    assert catalog.titles[catalog.position["new"]] == "Brand new"
    assert catalog.titles[catalog.position["1"]] == "Other"
    whole = ["--index", tiny.index, "--items", tiny.items, "--version", "2", "--model", "shop", "--json"]
    assert json.loads(good("catalog", "update", "--admin", where, *whole).stdout) == {
        "model": "shop", "version": "2", "catalog": "2", "items": 40,
    }  # fmt: skip
    assert models.named("shop", "2").edition.recommender.catalog == Recommender.open(tiny.bundle).catalog
    assert good("catalog", "rollback", "--admin", where).stdout == "shop: version 1 has catalog 1 (40 items)\n"
    assert good("model", "switch", "shop", "2", "--admin", where).stdout.startswith("shop: version 2 has catalog 2 ")
    assert good("catalog", "status", "--admin", where).stdout.splitlines() == [
        f"  shop version 1: {tiny.bundle} on cpu, catalog 1 of 40 items",
        f"* shop version 2: {tiny.bundle} on cpu, catalog 2 of 40 items; kept: 1",
    ]
    assert good("model", "unload", "shop/1", "--admin", where).stdout.startswith("* shop version 2")
    assert json.loads(good("model", "unload", "shop", "--all", "--admin", where, "--json").stdout) == {"models": []}


def test_a_bad_update_changes_nothing_and_says_why(where: str, models: Models, tiny: Tiny, tmp_path: Path) -> None:
    models.load("shop", tiny.bundle)
    add = tmp_path / "add.jsonl"
    add.write_text('{"item": "x", "identifier": ["<a_77>", "<b_1>"]}\n{"item": "y", "identifier": ["<z>"]}\n')
    refused = run("catalog", "update", "--admin", where, "--add", add)
    assert refused.exit_code == 1
    assert "Error: 2 items have tokens that the model does not know" in refused.stderr
    assert [json.loads(line) for line in refused.stdout.splitlines()] == [
        {"item": "x", "tokens": ["<a_77>"]}, {"item": "y", "tokens": ["<z>"]},
    ]  # fmt: skip
    add.write_text('{"item": "x"}\n')
    assert "line 1: " in bad("catalog", "update", "--admin", where, "--add", add)
    assert "nothing is to be changed" in bad("catalog", "update", "--admin", where)
    assert "with --index only" in bad("catalog", "update", "--admin", where, "--items", tiny.items)
    assert "whole catalog" in bad("catalog", "update", "--admin", where, "--index", tiny.index, "--add", add)
    assert "is not a bundle" in bad("model", "load", "shop", tmp_path, "--admin", where)
    assert "no version '7'" in bad("model", "switch", "shop", "7", "--admin", where)
    assert "no catalog of 'shop' is kept" in bad("catalog", "rollback", "--admin", where)
    assert [(one.version, one.catalog) for one in models.status()] == [("1", "1")]


@pytest.mark.parametrize("where", ["none.sock", "http://127.0.0.1:9"])
def test_nobody_listens(where: str, tmp_path: Path) -> None:
    place = where if "://" in where else str(tmp_path / where)
    for words in (["catalog", "status"], ["model", "unload", "shop", "--all"], ["catalog", "rollback"]):
        assert f"no admin interface answers at {place}" in bad(*words, "--admin", place)
    assert "expected a socket's path, or" in bad("model", "status", "--admin", "ftp://here")
