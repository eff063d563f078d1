"""The real `specbeam serve`, in a process of its own."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

PATIENCE = 120  # seconds


@dataclass
class Running:
    """A server that runs, or has ended."""

    process: "subprocess.Popen[bytes]"
    written: Path  # its log
    host: str = ""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = self.written.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first such line of the log."""
        until = time.monotonic() + PATIENCE
        while not (found := self.events(event)):
            assert self.process.poll() is None, self.written.read_text()
            assert time.monotonic() < until, self.written.read_text()
            time.sleep(0.02)
        return found[0]

    def connect(self) -> HTTPConnection:
        return HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def raw(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), PATIENCE)

    def ask(self, body: Any, path: str = "/v1/recommend", method: str = "POST", **headers: str) -> tuple[int, Any]:
        """One request on a connection of its own: its status, and the answer's JSON."""
        connection = self.connect()
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(folder: Path, *arguments: object, ready: bool = True) -> Iterator[Running]:
    """`specbeam serve` with these arguments on a free port; ready: wait until it serves."""
    written = folder / "serve.log"
    command = [sys.executable, "-m", "specbeam.cli", "serve", "--port", "0", *map(str, arguments)]
    with written.open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, cwd=folder)
    running = Running(process, written)
    try:
        address = running.wait_for("listening")
        running.host, running.port = address["host"], address["port"]
        if ready:
            running.wait_for("ready")
        yield running
    finally:
        process.kill()
        process.wait()
