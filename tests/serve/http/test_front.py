"""What every request passes: ids, the token, limits, the log, metrics; and what the server says of itself."""

import asyncio
import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from http_cases import Served, gated, served
from specbeam.catalog.errors import BundleError, OptionError
from specbeam.serve import Serving
from specbeam.serve.http.app import create_app
from specbeam.serve.http.limits import Limits
from specbeam.serve.http.refusals import refusal
from specbeam.serve.http.service import HttpSettings
from specbeam.serve.protocol.refusals import scrubbed

GOOD = {"items": ["i3", "i4"], "k": 2}
TOKEN = "0123456789abcdef"


def metric(it: Served, name: str, **labels: str) -> float:
    samples = [
        sample for family in text_string_to_metric_families(it.client.get("/metrics").text) for sample in family.samples
    ]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def settled(it: Served, number: int) -> None:
    """So many requests have been answered, and no more; they are counted behind their answers."""
    until = time.monotonic() + 60
    while (found := metric(it, "specbeam_requests_total", outcome="answered")) < number and time.monotonic() < until:
        time.sleep(0.01)
    assert found == number


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "\u00e9"])
def test_a_request_id_that_cannot_be_used_is_replaced(given: str) -> None:
    with served() as it:
        answer = it.ask(GOOD, headers={"X-Request-Id": given.encode()})
        assert len(answer.headers["x-request-id"]) == 16
        assert answer.headers["x-request-id"] == answer.json()["id"]


def test_the_token_is_required_where_it_is_set() -> None:
    with served(settings=HttpSettings(token=TOKEN)) as it:
        for header in (None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \u00e9"):
            headers = {} if header is None else {"Authorization": header.encode()}
            paths = ("/metrics", "/nothing", "/v2", "/v2/models/shop")
            for answer in (it.ask(GOOD, headers=headers), *(it.client.get(path, headers=headers) for path in paths)):
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "unauthorized" in answer.text
        assert it.client.get("/v2/health/live").status_code == 200
        assert it.client.get("/v2/health/ready").status_code == 200
        for scheme in ("Bearer", "bearer"):
            assert it.ask(GOOD, headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200
        assert TOKEN not in it.written.getvalue()
    assert TOKEN not in repr(HttpSettings(token=TOKEN))


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "\u00e9" * 20, "line\nbreak" * 3])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(OptionError, match="the token cannot be used"):
        HttpSettings(token=token)


@pytest.mark.parametrize("limit", ["body", "items", "k", "entries", "concurrency", "timeout_ms", "read_ms"])
def test_limits_are_whole_numbers_above_zero(limit: str) -> None:
    for value in (0, -1, 1.5, "9", True):
        with pytest.raises(OptionError, match=limit):
            Limits(**{limit: value})


def test_a_server_whose_last_model_is_unloaded_is_not_ready() -> None:
    with served() as it:
        assert it.client.get("/v2/health/ready").status_code == 200
        it.service.models.unload(it.service.models.names[0])
        assert it.client.get("/v2/health/ready").status_code == 503
        assert it.client.post("/v1/recommend", json=GOOD).status_code == 503


def test_a_target_with_scheme_and_host_is_its_path() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    with served() as it:
        scope = {
            "type": "http", "method": "GET", "path": "http://example.org/v2/health/live", "headers": [],
            "query_string": b"", "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        asyncio.run(create_app(it.service)(scope, receive, send))
    assert sent[0]["status"] == 200


def test_a_body_of_two_ends_is_refused() -> None:
    with served() as it:
        headers = {"Transfer-Encoding": "chunked", "Content-Length": "3"}
        refused = it.client.post("/v1/recommend", json=GOOD, headers=headers)
        assert (refused.status_code, refused.headers["Connection"]) == (400, "close")


def test_until_it_is_ready_it_lives_and_says_so() -> None:
    with served(phase="loading") as it:
        assert it.client.get("/v2/health/live").json() == {"live": True}
        ready = it.client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        for answer in (it.ask(GOOD), it.client.get("/v2/models/shop"), it.client.get("/v2/models/shop/ready")):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        it.service.phase = "stopping"  # what comes on connections that are still open is answered
        assert it.client.get("/v2/health/ready").status_code == 503
        assert it.ask(GOOD).status_code == 200


def test_bodies_are_bounded_and_not_compressed() -> None:
    with served(settings=HttpSettings(Limits(body=200))) as it:
        large = json.dumps(GOOD | {"user": "u" * 200}).encode()
        assert it.client.post("/v1/recommend", content=large).status_code == 413
        assert it.client.post("/v1/recommend", content=iter([large[:100], large[100:]])).status_code == 413
        small = json.dumps(GOOD).encode()
        assert it.client.post("/v1/recommend", content=iter([small[:9], small[9:]])).status_code == 200
        for encoding in ("gzip", "br", "deflate, gzip", "x" * 100):
            answer = it.ask(GOOD, headers={"Content-Encoding": encoding})
            assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
        assert it.ask(GOOD, headers={"Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/v1/recommend/", 404), ("GET", "/v1/recommend", 405),
     ("DELETE", "/metrics", 405), ("GET", "/v2/models/none", 404), ("GET", "/v2/models/shop/versions/8", 404),
     ("POST", "/v2/models/none/infer", 404), ("GET", "/v2/models/shop/infer", 405), ("PATCH", "/v2", 405)],
)  # fmt: skip
def test_what_is_not_there_is_told_in_json(method: str, path: str, status: int) -> None:
    with served() as it:
        answer = it.client.request(method, path)
        assert answer.status_code == status
        told = answer.json()
        assert isinstance(told["error"], str if path.startswith("/v2") else dict)
        assert ("allow" in answer.headers) == (status == 405)


def test_requests_at_once_are_bounded_but_health_is_told() -> None:
    with served(settings=HttpSettings(Limits(concurrency=1))) as it:
        it.service.in_flight = 1
        answer = it.ask(GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert it.client.get("/v2/health/live").status_code == 200
        it.service.in_flight = 0
        assert it.ask(GOOD).status_code == 200
        assert it.service.in_flight == 0


def test_the_log_has_a_line_for_each_request_and_no_history() -> None:
    with served() as it:
        it.ask({"items": ["i3", "secret-item"], "user": "secret-user"})
        it.ask({"items": ["secret-item"]})
        it.client.get("/secret-path")
        requests = [line for line in it.log if line["event"] == "request"]
        assert [(line["status"], line["route"], line.get("model")) for line in requests] == [
            (200, "/v1/recommend", "shop"), (400, "/v1/recommend", "shop"), (404, "none", None)
        ]  # fmt: skip
        assert all(line["ms"] > 0 and line["id"] and line["method"] and line["time"] for line in requests)
        assert "secret" not in it.written.getvalue()


def test_metrics_count_what_happened() -> None:
    with served() as it:
        for _ in range(3):
            it.ask(GOOD)
        it.ask({"items": []})
        it.client.get("/nothing/1")
        it.client.get("/nothing/2")
        assert metric(it, "specbeam_http_requests_total", route="/v1/recommend", code="200") == 3
        assert metric(it, "specbeam_http_requests_total", route="/v1/recommend", code="400") == 1
        assert metric(it, "specbeam_http_requests_total", route="none", code="404") == 2
        assert metric(it, "specbeam_http_seconds_count", route="/v1/recommend") == 4
        settled(it, 3)
        assert metric(it, "specbeam_request_seconds_count", model="shop") == 3
        assert metric(it, "specbeam_queue_seconds_count", model="shop") == 3
        assert metric(it, "specbeam_model_info", model="shop", version="7", catalog_version="9") == 1
        assert metric(it, "specbeam_queue_length", model="shop") == 0
        assert metric(it, "specbeam_flying", model="shop") == 0
        rounds = metric(it, "specbeam_batch_requests_count", model="shop")
        assert rounds == metric(it, "specbeam_batch_requests_sum", model="shop") >= 3  # each was alone
        for name in ("target_calls", "draft_calls", "nodes_evaluated", "nodes_drafted", "nodes_needed", "nodes_found"):
            assert metric(it, f"specbeam_{name}_total", model="shop") > 0, name
        assert metric(it, "specbeam_target_seconds_total", model="shop") > 0
        assert metric(it, "specbeam_resident_bytes") > 10**7
        assert metric(it, "specbeam_http_in_flight") == 1  # this one


def test_two_services_in_one_process_count_for_themselves() -> None:
    with served() as one, served() as other:
        one.ask(GOOD)
        settled(one, 1)
        assert metric(other, "specbeam_requests_total", outcome="answered") == 0


@pytest.mark.parametrize("left", ["before the body", "while it waits"])
def test_a_client_that_leaves_takes_its_request_with_it(left: str) -> None:
    recommender, gate = gated()
    with served(recommender, serving=Serving(size=1)) as it:
        running = it.service.models.named().submit(["i3"])
        assert gate.entered.wait(60)
        sent: list[Any] = [{"type": "http.request", "body": json.dumps(GOOD).encode(), "more_body": False}]
        if left == "before the body":
            sent[0]["more_body"] = True
        messages = [*sent, {"type": "http.disconnect"}]
        answers: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(0.01)
            return messages.pop(0)

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "headers": [], "query_string": b""}
        asyncio.run(create_app(it.service)(scope, receive, send))
        assert answers[0]["status"] == 499  # to nobody, but the log and the metrics have it
        assert it.log[-1]["status"] == 499
        gate.open.set()
        assert running.result(60).recommendation.items
        assert it.ask(GOOD).status_code == 200  # behind it in the queue, so that it is known to be over
        settled(it, 2)


def test_a_slow_body_is_not_waited_for() -> None:
    with served(settings=HttpSettings(Limits(read_ms=30))) as it:
        answers: list[Any] = []

        async def receive() -> Any:
            if answers:
                return {"type": "http.disconnect"}
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "headers": [], "query_string": b""}
        asyncio.run(create_app(it.service)(scope, receive, send))
        assert answers[0]["status"] == 408
        assert json.loads(answers[1]["body"])["error"]["code"] == "slow_body"


def test_messages_hold_no_path_of_the_host() -> None:
    error = BundleError("/srv/models/b/manifest.json is damaged. Run: specbeam export --output '/srv/models/b'")
    assert scrubbed(error) == "(a path) is damaged. Run: specbeam export --output '(a path)'"
    assert refusal(error).status == 500
    assert "srv" not in refusal(error).message
    assert refusal(OptionError("got (/root/x) and a/b")).message == "got ((a path)) and a/b"
