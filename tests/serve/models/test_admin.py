"""The admin interface by itself: what it does, and what it refuses."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from scripted_recommender import make
from specbeam.catalog.errors import OptionError
from specbeam.serve.editions import Edition
from specbeam.serve.http import admin
from specbeam.serve.http.admin import admin_app
from specbeam.serve.http.admin_socket import admin_listener
from specbeam.serve.models import Models
from swap_cases import tiny_rows


@pytest.fixture
def models() -> Iterator[Models]:
    one = Models()
    for version in "12":
        one.add(Edition("m", version, "1", make(tiny_rows())))
    yield one
    one.close(timeout=60)


@pytest.fixture
def client(models: Models) -> TestClient:
    return TestClient(admin_app(models), base_url="http://localhost")


def told(client: TestClient, path: str, content: object, status: int = 200) -> Any:
    answer = client.post(path, json=content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    return answer.json()


def test_a_catalog_is_updated_and_rolled_back(client: TestClient, models: Models) -> None:
    update = {"retire": ["i3"], "titles": [{"item": "i4", "title": "four"}]}
    now = {"model": "m", "version": "2", "catalog": "2", "items": 29}
    assert told(client, "/catalog/update", {"update": update}) == now
    whole = {"catalog": [{"item": "x", "identifier": list(models.named().edition.recommender.catalog.identifiers[0])}]}
    assert told(client, "/catalog/update", {"model": "m", "version": "1", "update": whole})["items"] == 1
    first, second = client.get("/models").json()["models"]
    assert (first["version"], first["current"], first["catalog"], first["kept"]) == ("1", False, "2", ["1"])
    assert (second["version"], second["current"], second["items"]) == ("2", True, 29)
    assert told(client, "/catalog/rollback", {}) == now | {"catalog": "1", "items": 30}
    assert "no catalog of 'm' is kept" in told(client, "/catalog/rollback", {}, 400)["error"]


def test_a_model_is_switched_and_unloaded(client: TestClient, models: Models) -> None:
    assert told(client, "/models/switch", {"model": "m", "version": "1"})["version"] == "1"
    assert models.named().edition.version == "1"
    assert "Switch to another first" in told(client, "/models/unload", {"model": "m", "version": "1"}, 400)["error"]
    assert [one["version"] for one in told(client, "/models/unload", {"model": "m", "version": "2"})["models"]] == ["1"]
    assert "no version '2'" in told(client, "/models/switch", {"model": "m", "version": "2"}, 404)["error"]
    assert told(client, "/models/unload", {"model": "m"}) == {"models": []}
    assert "no model 'm' is served" in told(client, "/models/unload", {"model": "m"}, 404)["error"]


def test_items_of_unknown_tokens_are_listed(client: TestClient, models: Models) -> None:
    added = [{"item": str(n), "identifier": ["<1>", "<2>", "<3>"]} for n in range(9)]
    answer = told(client, "/catalog/update", {"update": {"add": added}}, 400)
    assert "9 items have tokens that the model does not know" in answer["error"]
    assert answer["items"] == [[str(n), ["<1>", "<2>", "<3>"]] for n in range(9)]
    assert models.named().edition.catalog == "1"


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        ("/catalog/update", b"{", "truncated"),
        ("/catalog/update", b"\xff\xfe{}", "body cannot be used"),
        ("/catalog/update", b"[" * 100_000, "body cannot be used"),
        ("/catalog/update", b"{}", "required field `update`"),
        ("/catalog/update", b'{"update": {}}', "the update holds nothing"),
        ("/catalog/update", b'{"update": {"retire": ["i1"], "x": 1}}', "unknown field `x`"),
        ("/catalog/update", b'{"update": {"add": [{"item": "a", "identifier": "<1>"}]}}', "$.update.add[0].identifier"),
        ("/catalog/update", b'{"update": {"add": [{"item": "a", "identifier": []}]}}', "without tokens"),
        ("/models/load", b'{"model": "m", "bundle": "/none"}', "/none is not a bundle"),
        ("/models/load", b'{"model": "m", "bundle": "a\\u0000b"}', "expected a path"),
        ("/models/load", b'{"model": "../m", "bundle": "/none"}', "cannot name a model"),
    ],
)
def test_what_cannot_be_is_refused_in_words(client: TestClient, path: str, body: bytes, part: str) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert part in answer.json()["error"]


def test_web_pages_and_huge_bodies_are_refused(
    client: TestClient, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    for headers in ({"origin": "http://localhost"}, {"host": "rebound.example"}):
        for answer in (client.get("/models", headers=headers), client.post("/models/unload", json={}, headers=headers)):
            assert answer.status_code == 403
    assert client.post("/catalog/rollback", content="{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/catalog/rollback").status_code == 405
    assert client.get("/v1/recommend").status_code == 404
    monkeypatch.setattr(admin, "MOST_BYTES", 100)
    assert told(client, "/catalog/update", {"update": {"retire": ["i1"] * 100}}, 413)["error"].startswith("the body")
    assert len(models.status()) == 2


def test_the_socket_is_its_owners_alone_and_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with admin_listener(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600
        refuse_socket(str(path), "another server listens there")
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with admin_listener(str(path)):  # what a server that was killed has left is no obstacle
        assert path.exists()
    path.write_text("mine")
    refuse_socket(str(path), "is no socket, and stays")
    assert path.read_text() == "mine"
    refuse_socket(str(tmp_path / "none" / "admin.sock"), "cannot listen")


def test_a_port_is_for_this_host_alone() -> None:
    with admin_listener("http://127.0.0.1:0") as bound:
        host, port = bound.getsockname()
        assert host == "127.0.0.1"
        refuse_socket(f"http://127.0.0.1:{port}", "cannot listen")
    for where in ("http://0.0.0.0:80", "http://example.org:80"):
        refuse_socket(where, "for this host alone")
    for where in ("https://127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1:70000", "http://127.0.0.1:x"):
        refuse_socket(where, "expected a socket's path, or")


def refuse_socket(where: str, message: str) -> None:
    with pytest.raises(OptionError, match=message), admin_listener(where):
        pass
