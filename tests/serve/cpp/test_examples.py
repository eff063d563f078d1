"""serve/cpp/examples, built by CMake from what is installed: their lists are those of `Recommender`."""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cpp_library import SOURCE, WARNINGS, Library, started, told
from cpp_requests import recommender
from specbeam.runtime import Recommender
from tiny_bundle import Tiny
from unix_lines import LineServer, line_server, rest

pytestmark = pytest.mark.services
K = 7


@pytest.fixture(scope="module")
def examples(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    found, checked = f"-DCMAKE_PREFIX_PATH={library.prefix}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"
    told("cmake", "-S", SOURCE / "examples", "-B", folder, "-G", "Ninja", found, checked)
    told("cmake", "--build", folder)
    return folder


@pytest.fixture(scope="module")
def own(tiny: Tiny) -> Recommender:
    return recommender(tiny)


@pytest.fixture(scope="module")
def server(examples: Path, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LineServer]:
    with line_server(tmp_path_factory.mktemp("server"), examples / "socket_server", tiny.bundle, K) as running:
        yield running


def histories(tiny: Tiny, count: int, first: int = 0) -> list[list[str]]:
    return [[tiny.item_ids[(row * 7 + i) % 40] for i in range(1 + row % 9)] for row in range(first, first + count)]


def same(listed: list[str], own: Recommender, history: list[str], k: int, exclude_history: bool = False) -> bool:
    (expected,) = own.recommend([history], k, exclude_history=exclude_history)
    return listed == [entry.item for entry in expected.items]


def test_one_list_from_c(examples: Path, tiny: Tiny, own: Recommender) -> None:
    for history in histories(tiny, 5):
        lines = [line.split("\t") for line in told(examples / "recommend", tiny.bundle, *history).splitlines()]
        assert [line[0] for line in lines] == [str(rank) for rank in range(1, 11)]
        assert same([line[1] for line in lines], own, history, 10, exclude_history=True)
        assert [line[3] for line in lines] == [f"Title {line[1]}" if int(line[1]) % 2 == 0 else "" for line in lines]


@pytest.mark.parametrize(("source", "compiler"), [
    ("recommend.c", ["gcc", "-std=c99", "-pedantic"]), ("recommend.c", ["gcc", "-std=c17"]),
    ("pool.cpp", ["g++", "-std=c++17", "-pedantic"]), ("socket_server.cpp", ["g++", "-std=c++20"]),
])  # fmt: skip
def test_pkg_config_builds_them_too(library: Library, tmp_path: Path, source: str, compiler: list[str]) -> None:
    made = tmp_path / "program"
    told(*compiler, *WARNINGS, "-pthread", SOURCE / "examples" / source, "-o", made, *library.flags())
    done = started([made])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{Path(source).stem} BUNDLE ")


def test_what_is_wrong_is_said(examples: Path, tiny: Tiny, tmp_path: Path) -> None:
    for program, words, expected in (
        ("recommend", [tmp_path / "none", "1"], "cannot open the bundle: "),
        ("recommend", [tiny.bundle, "no-such-item"], "no list: "),
        ("pool", [tiny.bundle, tmp_path / "none"], f"{tmp_path / 'none'} cannot be read"),
        ("pool", [tmp_path / "none", __file__], f"{tmp_path / 'none'}"),
        ("socket_server", [tiny.bundle, tmp_path / ("x" * 200)], "is too long for a socket's path"),
        ("socket_server", [tmp_path / "none", tmp_path / "s"], f"{tmp_path / 'none'}"),
    ):
        done = started([examples / program, *words])
        assert (done.returncode, done.stdout) == (1, ""), program
        assert expected in done.stderr


@pytest.mark.parametrize("threads", [1, 8])
def test_a_pool_of_threads_keeps_the_order_of_its_lines(
    examples: Path, tiny: Tiny, own: Recommender, tmp_path: Path, threads: int
) -> None:
    asked = histories(tiny, 200)
    lines = [" ".join([f"u{row}", *history]) for row, history in enumerate(asked)]
    (tmp_path / "histories.txt").write_text("".join(f"{line}\n" for line in [*lines, "ill no-such-item", "empty"]))
    done = started([examples / "pool", tiny.bundle, tmp_path / "histories.txt", threads, K])
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [answer[0] for answer in answers] == [f"u{row}" for row in range(200)]
    assert all(same(answer[1:], own, history, K) for answer, history in zip(answers, asked, strict=True))
    assert done.returncode == 1  # two lines have no list
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["line 201", "line 202"]


def test_a_server_on_a_unix_socket_answers_many_connections(server: LineServer, tiny: Tiny, own: Recommender) -> None:
    asked = [histories(tiny, 60, first) for first in range(24)]
    with ThreadPoolExecutor(24) as pool:
        answered = list(pool.map(lambda each: server.ask(" ".join(history) for history in each), asked))
    for each, lines in zip(asked, answered, strict=True):
        assert len(lines) == 60
        assert all(same(line.split(), own, history, K) for line, history in zip(lines, each, strict=True))


def test_a_line_that_cannot_be_answered_is_told_in_its_place(server: LineServer) -> None:
    answers = server.ask(["1", "no-such-item", "", "2"])
    assert [answer.startswith("error: ") for answer in answers] == [False, True, True, False]
    assert "no-such-item" in answers[1]


def test_clients_that_mean_no_good_harm_no_other(server: LineServer) -> None:
    with server.connect() as gone:
        gone.sendall(b"1 2 3\n" * 500)  # and away, before anything is answered
    with server.connect() as idle, server.connect() as endless:
        idle.sendall(b"1 2")  # the end of the line does not come
        endless.sendall(b"1" * 70_000)
        assert "longer than" in rest(endless)
        assert server.ask(["1"]) == server.ask(["1"])
    assert server.process.poll() is None


def test_a_socket_that_is_taken_is_left_to_its_server(examples: Path, server: LineServer, tiny: Tiny) -> None:
    done = started([examples / "socket_server", tiny.bundle, server.path])
    assert done.returncode == 1
    assert str(server.path) in done.stderr
    assert len(server.ask(["1"])) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_once_what_it_has_read_is_answered(
    examples: Path, tiny: Tiny, tmp_path: Path, number: int
) -> None:
    with line_server(tmp_path, examples / "socket_server", tiny.bundle, K) as running:
        with ThreadPoolExecutor(8) as pool, socket.socket(socket.AF_UNIX) as late:
            open_ones = [running.connect() for _ in range(8)]
            for connection in open_ones:
                connection.sendall(b"1 2 3\n" * 20)
                assert connection.recv(1)  # it has begun
            answers = pool.map(rest, open_ones)
            assert running.end(number) == 0
            assert {len(answer.splitlines()) for answer in answers} == {20}
            with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
                late.connect(str(running.path))
        for connection in open_ones:
            connection.close()
        assert not running.path.exists()


def test_cmake_refuses_another_version(library: Library, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(other C)\nfind_package(specbeam 9.9 REQUIRED)\n"
    )
    done = started(["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={library.prefix}"])
    assert done.returncode != 0
    assert "9.9" in done.stderr
