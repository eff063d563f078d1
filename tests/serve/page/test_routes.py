"""The page's files, and what it asks for: items by title, figures, pictures."""

import re
import sys
from threading import Event, Thread
from typing import Any
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

import specbeam.serve.http.pictures as pictures_module
from page_cases import HOSTILE, paged, shop
from specbeam.serve.editions import Edition
from specbeam.serve.http import page
from specbeam.serve.http.pictures import MOST

TOKEN = "0123456789abcdef"
OUTSIDE = re.compile(r"""https?://(?!www\.w3\.org/2000/svg)|url\(|@import|//cdn""")
AS_HTML = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|Function\(|srcdoc")


@pytest.fixture(scope="module")
def client() -> Any:
    with paged() as served:
        yield TestClient(served.app, raise_server_exceptions=False)


def found(client: TestClient, query: str, **more: object) -> list[str]:
    answer = client.get("/v1/items", params={"query": query, **more})
    assert answer.status_code == 200
    return [one["item"] for one in answer.json()["items"]]


def test_files_are_served_with_headers_that_allow_nothing_from_elsewhere(client: TestClient) -> None:
    for path, name in page.FILES.items():
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(page.KINDS[name.rpartition(".")[2]])
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not OUTSIDE.search(answer.text)


def test_the_page_holds_neither_script_nor_style_nor_handlers(client: TestClient) -> None:
    html = client.get("/").text
    assert re.findall(r"<script[^>]*>([^<]*)</script>", html) == [""]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert sorted(re.findall(r"(?:src|href)=\"([^\"#]+)\"", html)) == [
        "icon.svg", "icon.svg", "metrics", "openapi.json", "page.css", "page.js",
    ]  # fmt: skip


def test_scripts_make_text_of_what_they_get(client: TestClient) -> None:
    for name in page.SCRIPTS:
        assert not AS_HTML.search(client.get(f"/{name}").text)
    imported = {name for path in page.SCRIPTS for name in re.findall(r'from "\./(\S+)"', client.get(f"/{path}").text)}
    assert imported | {"page.js"} == set(page.SCRIPTS)


def test_what_the_page_asks_for_needs_the_token_and_the_page_does_not() -> None:
    with paged(token=TOKEN) as served:
        client = TestClient(served.app, raise_server_exceptions=False)
        assert [client.get(path).status_code for path in page.FILES] == [200] * len(page.FILES)
        assert [client.get(path).status_code for path in ("/v1/items", "/v1/figures")] == [401, 401]
        assert client.post("/v1/explain", json={"items": ["i0"]}).status_code == 401
        assert client.get("/v1/figures", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_items_are_found_by_all_words_whatever_their_case(client: TestClient) -> None:
    assert found(client, "LIP balm") == ["i0", "i2"]
    assert found(client, "balm lip") == ["i0", "i2"]
    assert found(client, " cherry ") == ["i1", "i0"]  # whose title begins so comes first
    assert found(client, "STRASSE") == ["i4"]
    assert found(client, "shampoo & conditioner") == ["i7"]  # &amp; in the file
    assert found(client, "i17") == ["i17"]
    assert found(client, "i1")[0] == "i1"  # before i10 to i19
    assert found(client, "lip nothing") == []
    assert found(client, "") == [f"i{i}" for i in range(10)]
    assert len(found(client, "i", limit=3)) == 3


def test_titles_are_answered_as_they_are(client: TestClient) -> None:
    answer = client.get("/v1/items", params={"query": "onerror"}).json()
    assert answer == {"items": [{"item": "i5", "title": HOSTILE[0]}], "model": "shop", "catalog_version": "9"}


@pytest.mark.parametrize(
    ("asked", "status", "field"),
    [
        ({"limit": "0"}, 400, "limit"), ({"limit": "51"}, 400, "limit"), ({"limit": "x" * 500}, 400, "limit"),
        ({"limit": "\u0663"}, 400, "limit"), ({"query": "x" * 201}, 400, "query"), ({"model": "none"}, 404, "model"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched(client: TestClient, asked: dict[str, str], status: int, field: str) -> None:
    answer = client.get("/v1/items", params=asked)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)


def test_a_new_catalog_is_searched_once_it_serves() -> None:
    with paged() as served:
        client = TestClient(served.app, raise_server_exceptions=False)
        assert found(client, "brush") == []
        served.service.models.add(Edition("shop", "7", "10", shop(("Brush",))))
        answer = client.get("/v1/items", params={"query": "brush"}).json()
        assert (answer["catalog_version"], [one["item"] for one in answer["items"]]) == ("10", ["i0"])


def test_nothing_is_asked_while_the_server_loads() -> None:
    with paged() as served:
        served.service.phase = "loading"
        client = TestClient(served.app, raise_server_exceptions=False)
        assert client.get("/v1/items").status_code == 503
        assert client.post("/v1/explain", json={"items": ["i0"]}).status_code == 503
        assert client.get("/v1/figures").status_code == 200


def test_figures_tell_of_what_was_asked(client: TestClient) -> None:
    before = client.get("/v1/figures").json()["lately"]["answered"]
    for _ in range(3):
        assert client.post("/v1/recommend", json={"items": ["i0"], "k": 3}).status_code == 200
    told = client.get("/v1/figures").json()
    assert told["lately"]["answered"] == before + 3
    assert told["lately"]["p95"] >= told["lately"]["p50"] > 0
    assert (told["queue"], told["flying"]) == (0, 0)
    assert told["lately"]["target_calls"] <= told["lately"]["plain_calls"]
    assert told["lately"]["batch"] >= 1
    assert told["models"] == [
        {"name": "shop", "version": "7", "catalog": "9", "items": 60, "mode": "strict", "scoring": "full"}
    ]


def drawn(client: TestClient, body: dict[str, Any]) -> list[str]:
    """What the picture says; it must be well-formed."""
    answer = client.post("/v1/explain", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml"), answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    root = ElementTree.fromstring(answer.content)
    names = {element.tag.partition("}")[2] for element in root.iter()}
    assert not names & {"script", "foreignObject", "image", "img"}
    return [text for element in root.iter() if (text := (element.text or "").strip())]


def test_the_picture_is_of_the_list_that_is_recommended(client: TestClient) -> None:
    for body in (
        {"items": ["i0", "i3"], "k": 12},
        {"items": ["i0", "i3"], "k": 12, "exclude_history": True, "deny": ["i5"]},
        {"items": ["i7"], "k": 5, "mode": "sampled", "seed": 4},
        {"items": ["i7"], "k": 5, "allow": ["i1", "i2", "i30"]},
    ):
        listed = [one["item"] for one in client.post("/v1/recommend", json=body).json()["items"]]
        said = drawn(client, body)
        assert set(listed) == {text for text in said if re.fullmatch(r"i\d+", text)}
        assert any(f"Top {len(listed)} for a history" in text for text in said)


def test_a_picture_holds_hostile_titles_as_text(client: TestClient) -> None:
    said = " ".join(drawn(client, {"items": ["i5", "i6", "i8"], "k": 50, "allow": [f"i{i}" for i in range(10)]}))
    assert "onerror" in said


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": ["i0"], "k": MOST + 1}, "k"), ({"items": []}, "items"), ({"items": ["nobody's"]}, "items"),
        ({"items": ["i0"], "colour": 1}, "colour"), ({"items": ["i0"], "mode": "tolerant"}, "slack"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_with_the_field(client: TestClient, body: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/explain", json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


def test_pictures_are_drawn_one_at_a_time(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave, answers = Event(), Event(), []
    explain = pictures_module.explain

    def slowly(*arguments: Any, **options: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return explain(*arguments, **options)

    monkeypatch.setattr(pictures_module, "explain", slowly)
    first = Thread(target=lambda: answers.append(client.post("/v1/explain", json={"items": ["i0"]})))
    first.start()
    assert entered.wait(60)
    refused = client.post("/v1/explain", json={"items": ["i0"]})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert client.post("/v1/recommend", json={"items": ["i0"]}).status_code == 200  # lists are found meanwhile
    leave.set()
    first.join()
    assert answers[0].status_code == 200
    assert client.post("/v1/explain", json={"items": ["i0"]}).status_code == 200


def test_a_server_that_lacks_the_packages_says_what_brings_them(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "specbeam.evaluate.tree_picture", raising=False)
    monkeypatch.setitem(sys.modules, "altair", None)
    answer = client.post("/v1/explain", json={"items": ["i0"]})
    assert answer.status_code == 501
    assert "altair" in answer.json()["error"]["message"]
    assert "pip install" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"items": 5}', b'{"items": [null]}',
     b'{"items": ["\\ud800"]}',
     b'{"items": ["i0"], "k": 1e99}', b'{"items": ["i0"], "k": -1}', b'{"items": ["i0"], "seed": 99999999999999999999}',
     b'{"items": ["i0"], "allow": []}', b'{"items": ["i0"], "mode": "sampled", "scoring": "full"}'],
    ids=range(14),
)  # fmt: skip
def test_whatever_is_sent_is_refused_and_fails_nothing(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/explain", content=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("query", ["\x00", "%00", "\u202e", "\t\n", "(.*", "\U0001f600", "%ff"])
def test_whatever_is_searched_for_is_answered(client: TestClient, query: str) -> None:
    assert client.get("/v1/items", params={"query": query}).status_code == 200


def test_bytes_that_are_no_text_are_searched_for_in_vain(client: TestClient) -> None:
    assert client.get("/v1/items?query=%ff%fe&query=x").status_code == 200
