"""`specbeam serve` as it is started: the same lists, its end, and clients that mean no good."""

import gzip
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from commands import bad, same_items
from http_process import Running, serving
from specbeam.runtime import EngineChoice, Recommender, Verification
from specbeam.runtime.search.filters import ItemFilter
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
CALLERS = 32
GOOD = {"items": ["1", "2"], "k": 5}


@pytest.fixture(scope="module")
def running(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(
        tmp_path_factory.mktemp("serve"), f"tiny={tiny.bundle}", "--threads", 1, "--max-body", 20_000, "--read-ms", 700
    ) as server:
        yield server


def cases(tiny: Tiny) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Requests, and what `Recommender` is asked for the same: how it verifies, and its arguments."""
    ids = tiny.item_ids
    found: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []
    for number in range(120):
        history, k = [ids[(number * 7 + i) % 40] for i in range(1 + number % 9)], 1 + number % 12
        request: dict[str, Any] = {"items": history, "k": k, "user": f"u{number}"}
        how: dict[str, Any] = {}
        asked: dict[str, Any] = {"k": k}
        if number % 3 == 1:
            how = {"mode": "sampled", "seed": number % 4}
        if number % 3 == 2:
            request |= {"allow": ids[:25], "deny": ids[3:7], "exclude_history": True}
            asked |= {"item_filter": ItemFilter(ids[:25], ids[3:7]), "exclude_history": True}
        found.append((request | how, how, asked))
    return found


def test_lists_are_those_of_python_under_concurrent_callers(running: Running, tiny: Tiny) -> None:
    asked = cases(tiny)
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda case: running.ask(case[0]), asked))
    own = Recommender.open(tiny.bundle, engine=EngineChoice(threads=1))
    for (request, how, arguments), (status, told) in zip(asked, answers, strict=True):
        assert status == 200, told
        ranked = own.verifying(Verification(**how)) if how else own
        (expected,) = ranked.recommend([request["items"]], users=[request["user"]], **arguments)
        listed = [
            {"item": e.item, "title": e.title, "score": e.score, "identifier": list(e.identifier)}
            for e in expected.items
        ]
        assert same_items(told["items"], listed), request
        assert told["user"] == request["user"]


def test_the_log_begins_with_the_address_and_tells_when_it_is_ready(running: Running) -> None:
    events = [line["event"] for line in running.log[:4]]
    assert events == ["listening", "loaded", "warm", "ready"]
    assert running.log[0]["url"] == running.url
    assert running.log[2]["batches"] >= 8


def closed(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    got = b""
    try:
        while chunk := connection.recv(4096):
            got += chunk
    except ConnectionResetError:
        pass
    return got


def cut(connection: socket.socket, part: bytes, *, pause: float, most: int) -> bool:
    """Whether the server ends the connection while the same is sent again and again."""
    try:
        for _ in range(most):
            connection.sendall(part)
            time.sleep(pause)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


HEAD = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("sent", [b"", b"PO", HEAD, HEAD + b"X-A: "])
def test_a_head_that_does_not_come_is_not_waited_for(running: Running, sent: bytes) -> None:
    with running.raw() as connection:
        connection.sendall(sent)
        assert closed(connection) == b""


def test_a_head_that_trickles_is_not_waited_for_not_even_behind_an_answer(running: Running) -> None:
    with running.raw() as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        while b'{"live":true}' not in got:
            got += connection.recv(4096)
        assert cut(connection, b"G", pause=0.05, most=200)


def test_a_body_that_does_not_come_is_not_waited_for(running: Running) -> None:
    with running.raw() as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert b" 408 " in closed(connection).split(b"\r\n")[0]


def test_an_answer_that_is_not_taken_ends_the_connection(running: Running) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((running.host, running.port))
        wanted = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        assert cut(connection, wanted * 20, pause=0.005, most=3000)  # pipelined, and never an answer read


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_is_refused_before_it_is_read(running: Running, chunked: bool) -> None:
    connection = running.connect()
    body = (b" " * 1000 for _ in range(10**6)) if chunked else None  # a gigabyte, if it were read
    connection.putrequest("POST", "/v1/recommend")
    connection.putheader(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(2**40))))
    connection.endheaders()
    try:
        for number, part in enumerate(body or ()):
            connection.send(b"%x\r\n%b\r\n" % (len(part), part))
            assert number < 10**5
    except (BrokenPipeError, ConnectionResetError):
        pass
    try:
        assert connection.getresponse().status == 413
    except (ConnectionResetError, HTTPException):
        assert chunked  # it was still sending
    connection.close()
    assert running.ask(GOOD)[0] == 200


def test_a_compressed_body_is_refused(running: Running) -> None:
    connection = running.connect()
    body = gzip.compress(json.dumps(GOOD).encode() + b" " * 10**7)
    connection.request("POST", "/v1/recommend", body, {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 415
    connection.close()


def test_sigterm_under_load_answers_what_was_accepted(tiny: Tiny, tmp_path: Path) -> None:
    stop = Event()
    with serving(tmp_path, tiny.bundle, "--threads", 1, "--batch-size", 4) as server:

        def caller(number: int) -> list[int]:
            statuses = []
            while not stop.is_set():
                try:
                    statuses.append(server.ask(GOOD | {"user": f"{number}"})[0])
                except (ConnectionError, HTTPException):
                    break  # not accepted any more
            return statuses

        with ThreadPoolExecutor(16) as pool:
            callers = [pool.submit(caller, number) for number in range(16)]
            while len(server.events("request")) < 100:
                time.sleep(0.02)
            try:
                assert server.end() == 0
            finally:
                stop.set()
            statuses = [status for each in callers for status in each.result()]
        logged = [line["status"] for line in server.events("request")]
        assert set(statuses) == set(logged) == {200}
        assert len(statuses) == len(logged) >= 100
        assert server.log[-1]["event"] == "ended"
        assert "Traceback" not in server.written.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tiny: Tiny, tmp_path: Path, number: int) -> None:
    with serving(tmp_path, tiny.bundle, "--threads", 1, "--read-ms", 80_000_000) as server, server.raw() as slow:
        slow.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")  # which is waited for
        while b"1.0" not in health(server):
            time.sleep(0.02)
        server.process.send_signal(number)
        server.wait_for("signal")
        assert server.process.poll() is None
        assert server.end(number) == 128 + number


def health(server: Running) -> bytes:
    """1.0 where another request than this one is being answered."""
    connection = server.connect()
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().splitlines()
    connection.close()
    (value,) = (float(line.split()[1]) for line in lines if line.startswith(b"specbeam_http_in_flight "))
    return f"{value - 1}".encode()


def test_a_signal_while_it_loads_ends_it(tiny: Tiny, tmp_path: Path) -> None:
    with serving(tmp_path, tiny.bundle, "--threads", 1, ready=False) as server:
        assert server.ask(None, "/v2/health/live", "GET") == (200, {"live": True})
        assert server.end() == 0


def test_the_token_of_a_file_is_required(tiny: Tiny, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-this-test\n")
    with serving(tmp_path, tiny.bundle, f"other={tiny.bundle}", "--threads", 1, "--token-file", token) as server:
        assert server.ask(GOOD)[0] == 401
        assert server.ask(GOOD, Authorization="Bearer a-token-of-this-tesT")[0] == 401
        status, told = server.ask(GOOD, "/v1/recommend?model=other", Authorization="Bearer a-token-of-this-test")
        assert (status, told["model"]) == (200, "other")
        assert server.ask(None, "/v2/health/ready", "GET")[0] == 200
        assert "a-token-of-this-test" not in server.written.read_text()


def test_what_cannot_be_served_is_told_before_anything_listens(tiny: Tiny, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "manifest.json").write_bytes((Path(__file__).parents[2] / "artifacts/text-2/manifest.json").read_bytes())
    assert "is a text bundle" in bad("serve", text)
    assert "two bundles are called 'bundle'" in bad("serve", tiny.bundle, tiny.bundle)
    assert "cannot name a model in an address" in bad("serve", f"a/b={tiny.bundle}")
    assert "is empty" in bad("serve", tiny.bundle, "--token-file", write_empty(tmp_path))
    assert "cannot listen on" in bad("serve", tiny.bundle, "--host", "256.1.1.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen on" in bad("serve", tiny.bundle, "--port", taken.getsockname()[1])


def write_empty(folder: Path) -> Path:
    (folder / "empty").write_text("\n")
    return folder / "empty"


def test_an_engine_that_is_not_there_ends_the_server(tiny: Tiny, tmp_path: Path) -> None:
    with serving(tmp_path, tiny.bundle, "--engine", "onnxruntime-cpu-int8", ready=False) as server:
        assert server.process.wait(60) == 1
        assert "onnxruntime-cpu-int8" in server.written.read_text()
        assert "Traceback" not in server.written.read_text()
