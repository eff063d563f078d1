"""The examples, built from an installed library as its users build them: by CMake, and by pkg-config."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cpp_library import PATIENCE, SOURCE, Library, started, told
from cpp_requests import recommender
from specbeam.runtime import Recommender
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
EXAMPLES = SOURCE / "examples"
CALLERS = 6  # whose lines on their way, 32 of each, fit the queue
NAMES = {"recommend": "c", "pool": "cpp", "socket_server": "cpp"}


@pytest.fixture(scope="module", params=["cmake", "pkg-config"])
def examples(request: pytest.FixtureRequest, library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs."""
    folder = tmp_path_factory.mktemp("examples")
    if request.param == "cmake":
        told("cmake", "-S", EXAMPLES, "-B", folder, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={library.prefix}")
        told("cmake", "--build", folder)
        return folder
    for name, kind in NAMES.items():
        compiler = ["gcc", "-std=c99"] if kind == "c" else ["g++", "-std=c++17", "-pthread"]
        told(*compiler, "-O1", EXAMPLES / f"{name}.{kind}", "-o", folder / name, *library.flags())
    return folder


@pytest.fixture(scope="module")
def own(tiny: Tiny) -> Recommender:
    return recommender(tiny)


def listed(own: Recommender, items: list[str], k: int, *, user: str | None = None, exclude: bool = False) -> list[str]:
    users = None if user is None else [user]
    [one] = own.recommend([items], k, users=users, exclude_history=exclude)
    return [entry.item for entry in one.items]


def test_one_list(examples: Path, tiny: Tiny, own: Recommender) -> None:
    rows = [line.split("\t") for line in told(examples / "recommend", tiny.bundle, "1", "2", "7").splitlines()]
    assert [row[1] for row in rows] == listed(own, ["1", "2", "7"], 10, exclude=True)
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 11)]
    assert {row[3] for row in rows} <= {"", *(f"Title {i}" for i in range(40))}
    failed = started([examples / "recommend", tiny.bundle, "none"])
    assert failed.returncode == 1
    assert failed.stderr.startswith("no list: A history cannot be used")
    failed = started([examples / "recommend", "nowhere", "1"])
    assert (failed.returncode, failed.stderr.startswith("cannot open the bundle: nowhere is not a bundle")) == (1, True)


def test_a_pool_of_threads(examples: Path, tiny: Tiny, own: Recommender, tmp_path: Path) -> None:
    histories = {f"u{row}": tiny.item_ids[row % 30 : row % 30 + 1 + row % 6] for row in range(100)}
    lines = [" ".join([user, *items]) for user, items in histories.items()]
    path = tmp_path / "histories.txt"
    path.write_text("\n".join([*lines[:50], "nobody none", *lines[50:]]) + "\n")
    done = started([examples / "pool", tiny.bundle, path, 8, 6])
    assert done.returncode == 1  # of one line
    assert done.stderr.startswith("line 51: A history cannot be used")
    expected = [" ".join([user, *listed(own, items, 6, user=user)]) for user, items in histories.items()]
    assert done.stdout.splitlines() == expected


@contextmanager
def serving(program: Path, bundle: Path, path: Path) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen([program, bundle, path, "5"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == f"listening at {path}\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    return connection


def test_a_server_on_a_unix_socket(examples: Path, tiny: Tiny, own: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    histories = [tiny.item_ids[row % 30 : row % 30 + 1 + row % 6] for row in range(100)]
    sent = "".join(" ".join(items) + "\n" for items in histories) + "none\n"
    expected = [" ".join(listed(own, items, 5)) for items in histories]
    with serving(examples / "socket_server", tiny.bundle, path) as process:
        with connected(path) as gone:  # and takes no answer
            gone.sendall(sent.encode())
        connections = [connected(path) for _ in range(CALLERS)]
        for connection in connections:
            connection.sendall(sent.encode())
        for connection in connections:
            connection.shutdown(socket.SHUT_WR)
            with connection, connection.makefile() as file:
                *lists, error = file.read().splitlines()
            assert lists == expected
            assert error.startswith("error: A history cannot be used")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not path.exists()


def test_the_server_answers_what_it_has_read_before_it_ends(examples: Path, tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving(examples / "socket_server", tiny.bundle, path) as process, connected(path) as connection:
        connection.sendall(b"1 2\n" * 20)
        with connection.makefile() as file:
            assert len(file.readline().split()) == 5  # by now it has read them all
            process.send_signal(signal.SIGINT)
            assert [len(line.split()) for line in file] == [5] * 19
        assert process.wait(PATIENCE) == 0


def test_cmake_refuses_another_version(library: Library, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(other C)\nfind_package(specbeam 9.9 REQUIRED)\n"
    )
    done = started(["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={library.prefix}"])
    assert done.returncode != 0
    assert "9.9" in done.stderr
