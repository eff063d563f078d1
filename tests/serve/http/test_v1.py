"""POST /v1/recommend: lists as `Recommender` gives them, and each mistake by its field."""

from typing import Any

import pytest

from http_cases import MAX_K, gated, served, shop
from scripted_recommender import assert_same, pairs
from specbeam.runtime import Verification
from specbeam.runtime.search.filters import ItemFilter
from specbeam.serve import Serving
from specbeam.serve.http.limits import Limits
from specbeam.serve.http.service import HttpSettings

HISTORY = ["i3", "i14", "i15"]


def listed(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(item["item"], item["score"]) for item in answer["items"]]


def test_a_list_is_that_of_the_recommender() -> None:
    with served() as it:
        answer = it.ask({"user": 12, "items": HISTORY, "k": 7}, headers={"X-Request-Id": "mine-1"})
        (expected,) = shop().recommend([HISTORY], 7)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "mine-1"
        told = answer.json()
        assert_same(listed(told), pairs(expected))
        first = told["items"][0]
        assert list(first) == ["item", "title", "score", "identifier"]
        assert tuple(first["identifier"]) == expected.items[0].identifier
        named = {"model": "shop", "model_version": "7", "catalog_version": "9", "id": "mine-1", "user": "12"}
        assert told == {"items": told["items"]} | named
        assert len(it.ask({"items": HISTORY}).json()["items"]) == 20


def test_requests_have_wishes_of_their_own() -> None:
    with served() as it:
        own = shop()
        allow = [f"i{i}" for i in range(20)]
        wishes = {"k": 9, "allow": allow, "deny": ["i4", "i5"], "exclude_history": True, "stats": True, "priority": 3}
        told = it.ask({"items": [*HISTORY, "gone"], **wishes}).json()
        (expected,) = own.recommend([HISTORY], 9, item_filter=ItemFilter(allow, ["i4", "i5"]), exclude_history=True)
        assert_same(listed(told), pairs(expected))
        assert told["unknown_items"] == 1
        assert set(told["stats"]) == {"target_calls", "draft_calls", "nodes_evaluated"}
        few = it.ask({"items": HISTORY, "allow": ["i1", "i2"], "k": 5}).json()
        assert (len(few["items"]), few["available"]) == (2, 2)
        assert it.ask({"items": HISTORY, "allow": []}).json()["items"] == []


@pytest.mark.parametrize(
    "wish",
    [{"mode": "sampled"}, {"mode": "sampled", "seed": 11, "temperature": 0.7}, {"mode": "tolerant", "slack": 0.3},
     {"mode": "relaxed", "seed": 2}, {"scoring": "constrained"}],
)  # fmt: skip
def test_requests_say_how_they_are_verified(wish: dict[str, Any]) -> None:
    with served() as it:
        told = it.ask({"items": HISTORY, "user": "u", "k": 8, **wish})
        assert told.status_code == 200, told.text
        own = shop(verification=Verification(**wish))
        (expected,) = own.recommend([HISTORY], 8, users=["u"])
        assert_same(listed(told.json()), pairs(expected))


def test_settings_of_the_servers_own_mode_hold_unless_they_are_given() -> None:
    own = Verification("sampled", temperature=0.6, seed=4)
    with served(shop(verification=own)) as it:
        for wish, meant in (({}, own), ({"seed": 9}, Verification("sampled", temperature=0.6, seed=9)),
                            ({"mode": "strict"}, Verification())):  # fmt: skip
            told = it.ask({"items": HISTORY, "user": "u", "k": 5, **wish}).json()
            (expected,) = shop(verification=meant).recommend([HISTORY], 5, users=["u"])
            assert_same(listed(told), pairs(expected))


BAD = [
    ({}, "items"),
    ({"items": []}, "items"),
    ({"items": ["gone", "lost"]}, "items"),
    ({"items": "i3"}, "items"),
    ({"items": [["i3"]]}, "items[0]"),
    ({"items": ["i3", 1.5]}, "items[1]"),
    ({"items": ["i3", None]}, "items[1]"),
    ({"items": ["i3", True]}, "items[1]"),
    ({"items": [2**63]}, "items[0]"),
    ({"items": ["i3"] * 1001}, "items"),
    ({"items": ["i3"], "k": 0}, "k"),
    ({"items": ["i3"], "k": -1}, "k"),
    ({"items": ["i3"], "k": MAX_K + 1}, "k"),
    ({"items": ["i3"], "k": 10**40}, "k"),
    ({"items": ["i3"], "k": "5"}, "k"),
    ({"items": ["i3"], "k": 1.5}, "k"),
    ({"items": ["i3"], "k": True}, "k"),
    ({"items": ["i3"], "user": []}, "user"),
    ({"items": ["i3"], "allow": "i3"}, "allow"),
    ({"items": ["i3"], "deny": [{}]}, "deny[0]"),
    ({"items": ["i3"], "exclude_history": 1}, "exclude_history"),
    ({"items": ["i3"], "mode": "best"}, "mode"),
    ({"items": ["i3"], "mode": "sampled", "scoring": "full"}, "scoring"),
    ({"items": ["i3"], "mode": "tolerant"}, "slack"),
    ({"items": ["i3"], "mode": "tolerant", "slack": -1}, "slack"),
    ({"items": ["i3"], "seed": 1}, "seed"),
    ({"items": ["i3"], "mode": "sampled", "seed": 2**64}, "seed"),
    ({"items": ["i3"], "mode": "sampled", "temperature": 0}, "temperature"),
    ({"items": ["i3"], "deadline_ms": 0}, "deadline_ms"),
    ({"items": ["i3"], "priority": 2**40}, "priority"),
    ({"items": ["i3"], "stats": "yes"}, "stats"),
    ({"items": ["i3"], "labels": ["i4"]}, "labels"),
    ({"items": ["i3"], "K": 5}, "K"),
]


def test_mistakes_are_told_by_their_fields_alone_and_in_a_list() -> None:
    with served() as it:
        for body, field in BAD:
            answer = it.ask(body)
            told = answer.json()["error"]
            assert (answer.status_code, told["code"], told.get("field")) == (400, "invalid", field), (body, told)
            assert told["message"]
        for start in range(0, len(BAD), 30):
            some = BAD[start : start + 30]
            answer = it.ask([body for body, _ in some] + [{"items": HISTORY, "k": 3}])
            assert answer.status_code == 200
            *errors, good = answer.json()
            assert_same(listed(good), pairs(shop().recommend([HISTORY], 3)[0]))
            for number, ((_, field), entry) in enumerate(zip(some, errors, strict=True)):
                assert entry["error"]["code"] == "invalid"
                assert entry["error"]["field"] in (field, f"[{number}].{field}")
                assert entry["id"].endswith(f"-{number}")


@pytest.mark.parametrize(
    "body", [b"", b"x", b"{", b"[", b"[]", b"null", b"3", b'{"items": ["\\ud800"]}', b"\xff\xfe", b"[" * 5000,
             b'{"items":' * 3000, b'{"items": [NaN]}', b'[{"items": ["i3"]},]', b'{"items": ["i3"]} x']
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with served() as it:
        answer = it.client.post("/v1/recommend", content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid")


def test_lists_are_bounded() -> None:
    with served(settings=HttpSettings(Limits(entries=3, items=2, k=4))) as it:
        entry = {"items": ["i3"], "k": 2}
        assert it.ask([entry] * 3).status_code == 200
        assert it.ask([entry] * 4).json()["error"]["message"] == "got a list of 4 requests; expected 1 to 3."
        assert it.ask({"items": HISTORY}).json()["error"]["field"] == "items"
        assert it.ask(entry | {"k": 5}).json()["error"]["field"] == "k"


def test_unknown_items_are_refused_where_the_server_says_so() -> None:
    with served(settings=HttpSettings(unknown_items="reject")) as it:
        told = it.ask({"items": ["i3", "gone"]}).json()["error"]
        assert told["field"] == "items"
        assert told["message"] == "the catalog lacks 1 of the 2 items, e.g. 'gone'."
        assert it.ask({"items": ["i3"]}).status_code == 200


def test_models_are_asked_by_name() -> None:
    with served(shop(), shop(seed=2)) as it:
        own = it.ask({"items": HISTORY}, params={"model": "shop1"}).json()
        assert own["model"] == "shop1"
        assert_same(listed(own), pairs(shop(seed=2).recommend([HISTORY], 20)[0]))
        assert it.ask({"items": HISTORY}).json()["model"] == "shop"
        answer = it.ask({"items": HISTORY}, params={"model": "shop2"})
        assert (answer.status_code, answer.json()["error"]["field"]) == (404, "model")


def test_a_full_queue_and_a_deadline_are_told() -> None:
    recommender, gate = gated()
    with served(recommender, serving=Serving(size=1, queue=1)) as it:
        model = it.service.models.named()
        running = model.submit(["i3"])
        assert gate.entered.wait(60)
        late = it.ask({"items": HISTORY, "deadline_ms": 1})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_passed")
        while len(model.worker.waiting):  # the late one, which was cancelled, waits until the worker sees it
            gate.open.set()
        gate.open.clear()
        gate.entered.clear()
        others = [model.submit(["i4"])]
        assert gate.entered.wait(60)
        others.append(model.submit(["i5"]))
        refused = it.ask({"items": HISTORY})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        (entry,) = it.ask([{"items": HISTORY}]).json()
        assert entry["error"]["code"] == "overloaded"
        assert entry["error"]["retry_after"] > 0
        gate.open.set()
        assert all(one.result(60).recommendation.items for one in (running, *others))
        assert it.ask({"items": HISTORY}).status_code == 200


def test_an_engine_that_fails_says_nothing_of_itself_to_clients() -> None:
    recommender, gate = gated()
    gate.error = RuntimeError("no such file: /home/someone/model.onnx")
    gate.open.set()
    with served(recommender) as it:
        answer = it.ask({"items": HISTORY})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        assert "model.onnx" not in answer.text
        assert "Traceback" not in answer.text
        (entry,) = it.ask([{"items": HISTORY}]).json()
        assert entry["error"]["code"] == "internal"
        errors = [line for line in it.log if line["event"] == "error"]
        assert [line["id"] for line in errors] == [answer.json()["id"], entry["id"]]
        assert all("model.onnx" in line["error"] and line["at"] for line in errors)
