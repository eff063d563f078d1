"""A server of lines on a Unix socket, in a process of its own, and its clients."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

PATIENCE = 60  # seconds


@final
@dataclass(frozen=True)
class LineServer:
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    path: Path
    written: Path  # its standard error

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.path))
        return connection

    def ask(self, lines: Iterable[str]) -> list[str]:
        """All lines on one connection, and what is answered until the server ends it."""
        with self.connect() as connection:
            connection.sendall("".join(f"{line}\n" for line in lines).encode())
            connection.shutdown(socket.SHUT_WR)
            return rest(connection).splitlines()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def rest(connection: socket.socket) -> str:
    """What comes until the other side ends the connection."""
    read = b""
    try:
        while part := connection.recv(4096):
            read += part
    except ConnectionResetError:  # it has not read all
        pass
    return read.decode()


@contextmanager
def line_server(folder: Path, program: Path, bundle: Path, *words: object) -> Iterator[LineServer]:
    """`program BUNDLE SOCKET words`, once it listens."""
    path, written = folder / "s", folder / "server.log"
    with written.open("wb") as log:
        process = subprocess.Popen([str(word) for word in (program, bundle, path, *words)], stderr=log)
    until = time.monotonic() + PATIENCE
    try:
        while "listening" not in written.read_text():
            assert process.poll() is None, written.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield LineServer(process, path, written)
    finally:
        process.kill()
        process.wait()
