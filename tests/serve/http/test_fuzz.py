"""Strangers' requests: generated from the OpenAPI document, and bytes that are none."""

import random
import socket
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from http_process import Running, serving
from specbeam.serve.http.openapi import document
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
SEED = 20
HISTORY = b'{"items": ["1"], "k": 2}'
TENSOR = b'{"inputs":[{"name":"items","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}'
GOOD = (
    b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(HISTORY), HISTORY),
    b"GET /v2/models/tiny HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n",
    b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Inference-Header-Content-Length: %d\r\n\r\n%x\r\n%b\r\n5\r\n\x01\0\0\x001\r\n0\r\n\r\n"
    % (len(TENSOR), len(TENSOR), TENSOR),
)


@pytest.fixture(scope="module")
def running(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fuzz")
    with serving(folder, f"tiny={tiny.bundle}", "--threads", 1, "--read-ms", 2000, "--max-body", 50_000) as server:
        yield server
        assert server.process.poll() is None
        assert server.events("error") == []
        assert {line["status"] for line in server.events("request")} & {500} == set()
        assert "Traceback" not in server.written.read_text()


OPERATIONS = [
    f"{method} {path}" for path, entry in document()["paths"].items() for method in entry if method != "parameters"
]


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_generated_request_is_answered_otherwise_than_the_document_says(running: Running, name: str) -> None:
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    method, _, path = name.partition(" ")
    operation = schema[path][method]
    for mode in schemathesis.GenerationMode:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case: schemathesis.Case) -> None:
            for kind, value in (("name", "tiny"), ("version", "1")):  # half of them of what is there
                if kind in (case.path_parameters or {}) and len(str(case.path_parameters[kind])) % 2:
                    case.path_parameters[kind] = value
            case.call_and_validate(checks=CHECKS)

        ask()


def mutated(rng: random.Random, good: bytes) -> bytes:
    """A request with some bytes changed, doubled, cut or added."""
    changed = bytearray(good)
    for _ in range(rng.randint(1, 6)):
        at, size = rng.randrange(len(changed) + 1), rng.randint(0, 9)
        new = rng.choice([b"", rng.randbytes(size), b"\r\n", b"\0", b"9" * size, changed[at : at + size] * 3, b'["{'])
        changed[at : at + rng.choice([0, size])] = new
    return bytes(changed)


def test_bytes_that_are_no_requests_harm_nobody(running: Running) -> None:
    rng, answers = random.Random(SEED), 0
    for number in range(400):
        sent = mutated(rng, rng.choice(GOOD)) if number % 4 else rng.randbytes(rng.randint(1, 300))
        got = b""
        with running.raw() as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    got += chunk
            except ConnectionError:
                pass
        assert b"Traceback" not in got
        assert b"HTTP/1.1 500" not in got
        answers += got.startswith(b"HTTP/1.1 ")
    assert answers > 50
    for good in GOOD:
        with running.raw() as connection:
            connection.sendall(good)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
