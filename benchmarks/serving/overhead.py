"""What HTTP costs over the Python call, in microseconds of a request of one caller, and where they go.

Run: python -m benchmarks.serving.overhead [--bundle DIR] [--users 200]
In turns whose order changes, nothing drafted, every user is served by `Recommender` and `AsyncRecommender` in this
process, and by `specbeam serve` in another over one kept connection of the standard library's client; a health check
goes the same way, which is all of the way that has nothing to do with lists. Differences are of the same user's times,
medians with 95 % intervals.
Hand-over: from the call to the worker's thread and back, encoding and search taken off. Parsing, encoding and
serialising are also timed by themselves. Processor time is that of the process that serves.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
from tqdm import tqdm

from benchmarks.serving.contestants import add_options, server
from benchmarks.shared import PAUSE, arguments, dump, print_table, real_users
from specbeam.engines.machine.processors import available_threads, busy, load
from specbeam.runtime import EngineChoice, Recommender
from specbeam.runtime.metrics import Estimate, median_estimate
from specbeam.serve import AsyncRecommender, Served, Serving
from specbeam.serve.editions import Edition
from specbeam.serve.http.v1 import Answer
from specbeam.serve.protocol.asking import Asked, decoded

WARM_UP, OFTEN = 8, 20


class Client:
    """One kept connection."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc)

    def health(self) -> bytes:
        return self._asked("GET", "/v2/health/live", None)

    def recommend(self, body: bytes) -> bytes:
        return self._asked("POST", "/v1/recommend", body)

    def _asked(self, method: str, path: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content


def processor_seconds(process: int) -> float:
    """That a process has had, its threads included."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def taken(work: Callable[[], object]) -> float:
    """Microseconds."""
    sleep(PAUSE)
    start = perf_counter()
    work()
    return 1e6 * (perf_counter() - start)


def often(work: Callable[[], object]) -> float:
    """Microseconds of something short."""
    return taken(lambda: [work() for _ in range(OFTEN)]) / OFTEN


class Contest:
    """The ways that one user after another is served."""

    def __init__(self, options: argparse.Namespace, url: str, process: "subprocess.Popen[str]") -> None:
        engine = EngineChoice(options.engine, threads=options.threads)
        self._k, self._client, self._process = options.k, Client(url), process.pid
        self._recommender = Recommender.open(options.bundle, engine=engine, drafting="none", batching=1)
        edition = Edition("model", "1", "1", self._recommender)
        self._served = AsyncRecommender(edition, serving=Serving(options.policy, size=1))
        self._loop = asyncio.new_event_loop()
        self._turns = 0
        self.processor = {"Python": 0.0, "HTTP": 0.0}  # seconds

    def close(self) -> None:
        self._served.close()
        self._loop.close()

    def turn(self, history: list[str]) -> dict[str, float]:
        """Microseconds of one user."""
        body = json.dumps({"items": history, "k": self._k}).encode()
        answers: list[Served] = []
        ways: list[tuple[str, Callable[[], object]]] = [
            ("health", self._client.health),
            ("Python", lambda: self._recommender.recommend([history], self._k)),
            ("HTTP", lambda: self._client.recommend(body)),
            ("async", lambda: answers.append(self._awaited(history))),
        ]
        found, self._turns = {}, self._turns + 1
        for place in range(len(ways)):  # whoever comes behind another finds its caches
            name, way = ways[(place + self._turns) % len(ways)]
            python, served = process_time(), processor_seconds(self._process)
            found[name] = taken(way)
            spent = {"Python": process_time() - python, "HTTP": processor_seconds(self._process) - served}
            if name in spent:
                self.processor[name] += spent[name]
        return found | self._parts(history, body, answers[0], found["async"])

    def _parts(self, history: list[str], body: bytes, answer: Served, whole: float) -> dict[str, float]:
        found: dict[str, float] = {}
        found["encoding"] = often(lambda: self._recommender.encode(history, k=self._k))
        found["parsing"] = often(lambda: decoded(body, Asked))
        found["serialising"] = often(lambda: msgspec.json.encode(told(answer)))
        search = 1e6 * (answer.seconds - answer.waited)
        return found | {"search": search, "hand-over": whole - search - found["encoding"]}

    def _awaited(self, history: list[str]) -> Served:
        return self._loop.run_until_complete(self._served.serve(history, k=self._k))


def told(served: Served) -> Answer:
    recommendation = served.recommendation
    return Answer(recommendation.items, served.model, served.version, served.catalog, "request")


def figures(turns: list[dict[str, float]]) -> dict[str, Estimate]:
    """Microseconds of a request."""
    each = {name: np.array([turn[name] for turn in turns]) for name in turns[0]}
    rows = {
        "HTTP over Recommender": each["HTTP"] - each["Python"],
        "HTTP over AsyncRecommender": each["HTTP"] - each["async"],
        "ASGI and socket (a health check)": each["health"], "parsing": each["parsing"],
        "queue and thread hand-over": each["hand-over"], "serialising": each["serialising"],
        "encoding (Python's as well)": each["encoding"], "search (Python's as well)": each["search"],
    }  # fmt: skip
    return {name: median_estimate(values) for name, values in rows.items()}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    histories = real_users(options.data)[1][: options.users]
    async with server(options, Serving(options.policy, size=1), ["--drafter", "none"]) as (url, process):
        contest = Contest(options, url, process)
        try:
            users = tqdm([*histories[:WARM_UP], *histories], desc="users", disable=None)
            turns = await asyncio.to_thread(lambda: [contest.turn(history) for history in users])
        finally:
            contest.close()
    processor = {name: 1e6 * seconds / len(turns) for name, seconds in contest.processor.items()}
    return {"microseconds": figures(turns[WARM_UP:]), "processor": processor}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument("--policy", default="in-flight", choices=["gathered", "in-flight"])
    parser.add_argument("--k", type=int, default=20)


def main() -> None:
    options = arguments(__doc__, users=200, more=add_arguments)
    processors, began = available_threads(), load()
    with tempfile.TemporaryDirectory() as options.folder:
        result = asyncio.run(measure(options))
    print(f"{processors} processors, load {began:.1f} before and {load():.1f} after, K = {options.k}\n")
    rows = [
        [name, f"{each.value:.0f}", f"{each.low:.0f} to {each.high:.0f}"]
        for name, each in result["microseconds"].items()
    ]
    print_table(["microseconds of a request", "median", "95 %"], rows)
    spent = result["processor"]
    print(f"\nprocessor time of a request: {spent['Python']:.0f} us in Python, {spent['HTTP']:.0f} us in the server")
    print(busy(began, processors) or "")
    dump(options.output, msgspec.to_builtins(result | {"load": [began, load()], "processors": processors}))


if __name__ == "__main__":
    main()
