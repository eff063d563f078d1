"""A Ray cluster of several processes on this machine: a head, and nodes that come and go."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from object_storage import KEYS

QUICK = {  # a node that is gone is noticed soon
    "RAY_health_check_initial_delay_ms": "2000", "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "4",
    "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
}  # fmt: skip
ACCESS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of these clusters, and nobody else's


def environment() -> dict[str, str]:
    """What nodes run in, and those who ask them."""
    return os.environ | QUICK | ACCESS | KEYS | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def descendants(pid: int) -> list[int]:
    """The processes below one."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


class Node:
    """One node: `ray start --block`, and what that starts."""

    def __init__(self, folder: Path, cpus: int, address: str | None, changes: dict[str, str]) -> None:
        self._log = folder / f"node-{time.monotonic_ns()}.log"
        where = ["--address", address] if address else ["--head", "--port=0", "--include-dashboard=false"]
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={cpus}",
            "--object-store-memory=100000000", "--disable-usage-stats", *where,
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=environment() | changes,
            )  # fmt: skip

    def address(self) -> str:
        """The head's, once it is there."""
        return self._told(r"--address='([^']+)'")

    def ready(self) -> None:
        self._told(r"(Ray runtime started)")

    def _told(self, wanted: str) -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            if found := re.search(wanted, self._log.read_text()):
                return found[1]
            time.sleep(0.2)
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        """At once, with all that is on it."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A head without processors, and nodes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.nodes = folder, [Node(folder, 0, None, {})]
        self.address = self.nodes[0].address()

    def add(self, cpus: int = 1, **changes: str) -> Node:
        """One more node, once it is there."""
        node = Node(self._folder, cpus, self.address, changes)
        self.nodes.append(node)
        node.ready()
        return node

    def end(self) -> None:
        for node in reversed(self.nodes):
            node.kill()


@contextmanager
def started(folder: Path, *cpus: int) -> Iterator[Cluster]:
    """With a node for each number of processors."""
    cluster = Cluster(folder)
    try:
        for number in cpus:
            cluster.add(number)
        yield cluster
    finally:
        cluster.end()


def workers_of(pid: int) -> list[int]:
    """The processes below one that serve partitions."""
    found = []
    for child in descendants(pid):
        with suppress(OSError):
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found.append(child)
    return found
