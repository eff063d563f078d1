"""What goes wrong costs the request that it goes wrong for, and nobody else's."""

import json
import struct
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.triton import Triton
from triton_cases import ask, value

pytestmark = pytest.mark.services
GOOD: dict[str, Any] = {"inputs": {"items": [["1", "2", "3"]]}, "parameters": {"k": 6}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"inputs": {"items": [["nothing"]]}}, "none of its 1 items is in the catalog"),
    ({"inputs": {"items": [["", ""]]}}, "it is empty"),
    ({"inputs": {"items": [["1"]] * 65}}, "got 65 rows; expected 1 to 64"),
    ({"inputs": {"items": ["1", "2"]}}, "unexpected shape for input 'items'"),
    ({"inputs": {"items": [["1"]]}, "parameters": {"k": 0}}, "invalid (parameters.k)"),
    ({"inputs": {"items": [["1"]]}, "parameters": {"k": 100_000}}, "lists of at most"),
    ({"inputs": {"items": [["1"]], "k": [-1]}}, "invalid (parameters.k)"),
    ({"inputs": {"items": [["1"]]}, "parameters": {"what": 1}}, "unknown field `what`"),
    ({"inputs": {"items": [["1"]]}, "parameters": {"mode": "best"}}, "invalid (parameters.mode)"),
    ({"inputs": {"items": [["1"]]}, "parameters": {"allow": "1,2"}}, "expected a list of ids as JSON"),
    ({"inputs": {"items": [["1"]], "users": ["a", "b"]}}, "got 2 users for 1 histories"),
    ({"inputs": {"items": [["1"]], "item_ids": [[1]]}}, "expected one of them"),
    ({"inputs": {"item_ids": [[1, 2]], "lengths": [3]}}, "expected 1 to 2 items"),
    ({"inputs": {"item_ids": [[1, 2]], "lengths": [1, 2]}}, "got 2 lengths for 1 histories"),
    ({"inputs": {"tokens": [[1, 2]]}}, "expected the input items, or tokens and lengths"),
    ({"inputs": {"tokens": [[1, 2]], "lengths": [3]}}, "expected 1 to 2 tokens"),
    ({"inputs": {"tokens": [[1, 10**9]], "lengths": [2]}}, "expected a token id below"),
    ({"inputs": {"items": [[1]]}, "types": {"items": "INT64"}}, "data-type is 'INT64'"),
    ({"inputs": {"items": [["1", "2"]]}, "timeout": 1}, "the deadline passed"),
    ({"inputs": {"items": [["1", "2"]]}, "parameters": {"deadline_ms": 0.001}}, "the deadline passed"),
]


def test_a_wrong_request_fails_alone(triton_python: Path, running: Triton, tmp_path: Path) -> None:
    asks = [each for wrong, _ in WRONG for each in (wrong, GOOD)]
    told = ask(triton_python, running, "tiny", asks, tmp_path, callers=8)
    for protocol, invalid, late in (
        ("http", "400", "503"), ("grpc", "StatusCode.INVALID_ARGUMENT", "StatusCode.UNAVAILABLE")
    ):  # fmt: skip
        for found in told[protocol][1::2]:
            assert found["items"] == told["http"][1]["items"]
            assert found["scores"][0] == pytest.approx(told["http"][1]["scores"][0], abs=1e-4)
        for (_, message), found in zip(WRONG, told[protocol][::2], strict=True):
            assert message in found["error"], found
            assert found["status"] == (late if "deadline" in message else invalid), found


def posted(running: Triton, body: bytes, head: int | None = None) -> tuple[int, str]:
    asked = urllib.request.Request(f"http://{running.http}/v2/models/tiny/infer", body)
    if head is not None:
        asked.add_header("Inference-Header-Content-Length", str(head))
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def text(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "raw"),
    [
        ("items", "BYTES", [1, 1], struct.pack("<I", 1000) + b"abc"),  # longer than what follows
        ("items", "BYTES", [1, 1], b"ab"),  # no length
        ("items", "BYTES", [1, 1], text(b"1") + text(b"2")),  # too many
        ("items", "BYTES", [1, 2], text(b"1")),  # too few
        ("items", "BYTES", [1, 1], text(b"\xff\xfe")),  # no UTF-8
        ("items", "BYTES", [-1, 1], text(b"1")),
        ("item_ids", "INT64", [1, 1], b"1234567"),
        ("item_ids", "INT64", [0, 0], b""),
        ("items", "BYTES", [1, 0], b""),
    ],
    ids=["too long", "no length", "too many", "too few", "no UTF-8", "no shape", "a cut number", "none", "empty"],
)
def test_a_malformed_tensor_fails_alone(
    running: Triton, name: str, datatype: str, shape: list[int], raw: bytes
) -> None:
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    status, told = posted(running, head + raw, len(head))
    assert status >= 400, told
    assert "error" in json.loads(told)
    good = {"name": "items", "datatype": "BYTES", "shape": [1, 1], "data": ["1"]}
    assert posted(running, json.dumps({"inputs": [good]}).encode())[0] == 200


def ended(page: str, **labels: str) -> float:
    return value(page, "specbeam_requests_total", model="tiny", **labels)


def test_whoever_cancels_takes_the_request_along(triton_python: Path, running: Triton, tmp_path: Path) -> None:
    history = [str(i) for i in range(9)]
    asks = [{"inputs": {"items": [history] * 60}, "parameters": {"k": 40}} for _ in range(4)]
    before = running.shown()
    told = ask(triton_python, running, "tiny", asks, tmp_path, cancel_after=0.05)
    assert any("cancelled" in each for each in told), told
    until = time.monotonic() + 60
    while ended(page := running.shown()) - ended(before) < 240:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert ended(page, outcome="cancelled") > ended(before, outcome="cancelled")
    assert "error" not in ask(triton_python, running, "tiny", [GOOD], tmp_path)["grpc"][0]


def test_too_many_are_refused_and_told_so(triton_python: Path, running: Triton, tmp_path: Path) -> None:
    asks = [{"inputs": {"items": [["1", "2", "3"]] * 64}, "parameters": {"k": 40}} for _ in range(24)]
    told = ask(triton_python, running, "tiny", asks, tmp_path, callers=24)
    for protocol, status in (("http", "503"), ("grpc", "StatusCode.UNAVAILABLE")):
        refused = [found for found in told[protocol] if "error" in found]
        assert 0 < len(refused) < 24
        for found in refused:
            assert found["status"] == status
            assert found["error"].startswith("overloaded: ")


def test_an_output_alone_is_given_where_it_is_asked_for(running: Triton) -> None:
    good = {"name": "items", "datatype": "BYTES", "shape": [1, 1], "data": ["1"]}
    asked = {"inputs": [good], "outputs": [{"name": "scores"}], "id": "q1"}
    status, told = posted(running, json.dumps(asked).encode())
    assert status == 200
    answer = json.loads(told)
    assert answer["id"] == "q1"
    assert [each["name"] for each in answer["outputs"]] == ["scores"]
