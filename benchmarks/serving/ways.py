"""What each way into a serving stack costs: Python, C, HTTP, Triton over HTTP and gRPC; every way in turn, in one run.

Run: python -m benchmarks.serving.ways [--bundle DIR] --prefix PREFIX
       --tritonserver FILES --triton-environment VENV --triton-python PYTHON
PREFIX: where libspecbeam is installed. FILES: the content of the wheel that `benchmarks.serving.triton` names. VENV:
what a packaged model's environment/make.sh has made. PYTHON: an interpreter that has tritonclient[http,grpc]. A way
that nothing is told of is left out.

Overhead: one caller, nothing drafted, batches of one; every user is served by all ways in turns whose order changes,
and what is told is the difference to `Recommender.recommend` of the same user, and where a way tells how long the
search took, what the call took beside it: medians and 95 %. Throughput: so many callers in a process of their own (but
Python's, who are threads here) on a server with batches of eight and `auto` drafting, in turns, the median of the
rounds; clients and servers share the processors.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from math import nan
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
from tqdm import tqdm

from benchmarks.serving.contestants import server
from benchmarks.serving.triton import triton
from benchmarks.shared import PAUSE, arguments, dump, print_table, real_users
from specbeam.engines.machine.processors import available_threads, busy, load
from specbeam.runtime import EngineChoice, Recommender
from specbeam.runtime.metrics import Estimate, median_estimate
from specbeam.serve import AsyncRecommender, Served, Serving
from specbeam.serve.editions import Edition
from specbeam.serve.triton.config import ENVIRONMENT, MADE
from specbeam.serve.triton.repository import Packaging, package
from specbeam.serve.triton.settings import TritonSettings

HERE = Path(__file__).parent
WARM_UP = 8
PYTHON = "Recommender"
Taken = tuple[float, float]  # microseconds of a user's list, and of these outside the search (NaN: not told)


class Caller:
    """A process that is told what to do line by line: c_client.cpp, line_client.py."""

    def __init__(self, command: Sequence[object]) -> None:
        words = [str(word) for word in command]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "ready"

    def one(self, number: int) -> Taken:
        taken, *outside = map(float, self._told(f"one {number}").split())
        return taken, outside[0] if outside else nan

    def load(self, callers: int, seconds: float) -> float:
        """Users a second."""
        requests, taken = self._told(f"load {callers} {seconds}").split()
        return int(requests) / float(taken)

    def lists(self, command: str, users: int) -> list[list[str]]:
        """The answer's lines, one a user, as their words."""
        lines = [self._told(command), *(self._line() for _ in range(users - 1))]
        return [line.split("\t") for line in lines]

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def _told(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"a client ended with status {self._process.wait()}")
        return line


class Threads:
    """Callers in this process."""

    def __init__(self, ask: Callable[[list[str]], object], histories: list[list[str]]) -> None:
        self._ask, self._histories = ask, histories

    def one(self, number: int) -> Taken:
        start = perf_counter()
        answer = self._ask(self._histories[number])
        taken = perf_counter() - start
        search = answer.seconds - answer.waited if isinstance(answer, Served) else nan
        return 1e6 * taken, 1e6 * (taken - search)

    def load(self, callers: int, seconds: float) -> float:
        turn, start = count(), perf_counter()

        def caller() -> int:
            answered = 0
            while perf_counter() < start + seconds:
                self._ask(self._histories[next(turn) % len(self._histories)])
                answered += 1
            return answered

        with ThreadPoolExecutor(callers) as pool:
            futures = [pool.submit(caller) for _ in range(callers)]
            return sum(future.result() for future in futures) / (perf_counter() - start)


Ways = dict[str, Caller | Threads]


@contextmanager
def calling(command: Sequence[object]) -> Iterator[Caller]:
    caller = Caller(command)
    try:
        yield caller
    finally:
        caller.close()


def compiled(options: argparse.Namespace) -> Path:
    """c_client, built against the installed library."""
    program, prefix = Path(options.folder) / "c_client", Path(options.prefix).resolve()
    if not program.exists():
        flags = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-lspecbeam", "-pthread"]
        subprocess.run(["g++", "-std=c++17", "-O2", HERE / "c_client.cpp", "-o", program, *flags], check=True)
    return program


def packaged(options: argparse.Namespace, repository: Path, name: str, told: dict[str, Any]) -> None:
    """The bundle as a model of Triton's, in the environment that is made already."""
    given = {key: value for key, value in told.items() if value is not None}
    package(Packaging(options.bundle, msgspec.convert(given, TritonSettings)), repository, name)
    (repository / name / ENVIRONMENT / MADE).symlink_to(options.triton_environment.resolve())


async def opened(stack: AsyncExitStack, options: argparse.Namespace, size: int, drafter: str | None) -> Ways:
    """All ways, warm: batches of `size`, and what drafts."""
    histories, serving = options.histories, Serving(size=size)
    engine = EngineChoice(options.engine, threads=options.threads)
    recommender = Recommender.open(options.bundle, engine=engine, drafting=drafter, batching=size)
    served = AsyncRecommender(Edition("model", "1", "1", recommender), serving=serving)
    stack.callback(served.close)
    ways: Ways = {"AsyncRecommender": Threads(lambda items: served.submit(items, k=options.k).result(), histories)}
    if size == 1:
        ways = {PYTHON: Threads(lambda items: recommender.recommend([items], options.k), histories)} | ways
    told = {"engine": options.engine, "threads": options.threads, "batch_size": size, "drafter": drafter}
    settings = msgspec.json.encode({key: value for key, value in told.items() if value is not None}).decode()
    if options.prefix:
        command = [compiled(options), options.bundle, settings, options.lines, options.k]
        ways["C"] = stack.enter_context(calling(command))
    more = ["--drafter", drafter] if drafter else []
    url, _ = await stack.enter_async_context(server(options, serving, more))
    address, client = urlsplit(url).netloc, HERE / "line_client.py"
    command = [sys.executable, client, "http", address, options.bundle.name, options.lines, options.k]
    ways["HTTP"] = stack.enter_context(calling(command))
    if options.tritonserver:
        name, folder = f"batch{size}", Path(options.folder)
        packaged(options, folder / "repository", name, told)
        running = stack.enter_context(triton(options.tritonserver, folder / "repository", folder, [name]))
        for way, port in {"http": running.http, "grpc": running.grpc}.items():
            command = [options.triton_python, client, f"triton-{way}", port, name, options.lines, options.k]
            ways[f"Triton, {way}"] = stack.enter_context(calling(command))
    return ways


def overheads(ways: Ways, users: int) -> dict[str, dict[str, Estimate]]:
    """Microseconds of a request over `Recommender.recommend` (of that name: the whole), and outside the search."""
    names, turns = list(ways), []
    for number in tqdm([*range(WARM_UP), *range(users)], desc="one caller", disable=None):
        found = {}
        for place in range(len(names)):  # whoever comes behind another finds its caches
            name = names[(place + len(turns)) % len(names)]
            sleep(PAUSE)
            found[name] = ways[name].one(number)
        turns.append(found)
    each = {name: np.array([turn[name] for turn in turns[WARM_UP:]]) for name in names}  # [users, 2]
    found = {}
    for name, (taken, outside) in {name: values.T for name, values in each.items()}.items():
        found[name] = {"over": median_estimate(taken - (each[PYTHON][:, 0] if name != PYTHON else 0))}
        if not np.isnan(outside).any():
            found[name]["outside"] = median_estimate(outside)
    return found


def throughputs(ways: Ways, options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Users a second by way and callers: the median of the rounds."""
    found: dict[tuple[str, int], list[float]] = {}
    turns = [(way, callers) for callers in options.callers for way in ways]
    for way in ways.values():
        way.load(8, 1.0)
    for _ in tqdm(range(options.rounds), desc="rounds", disable=None):
        for way, callers in turns:
            sleep(PAUSE)
            found.setdefault((way, callers), []).append(ways[way].load(callers, options.seconds))
    return {way: {callers: median(found[way, callers]) for callers in options.callers} for way in ways}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        overhead = await asyncio.to_thread(overheads, await opened(stack, options, 1, "none"), options.users)
    async with AsyncExitStack() as stack:
        throughput = await asyncio.to_thread(throughputs, await opened(stack, options, 8, None), options)
    return {"overhead": overhead, "throughput": throughput}


def shown(found: Estimate) -> str:
    return f"{found.value:.0f} [{found.low:.0f}, {found.high:.0f}]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--prefix", help="where libspecbeam is installed")
    parser.add_argument("--tritonserver", type=Path, help="the wheel's content, see `benchmarks.serving.triton`")
    parser.add_argument("--triton-environment", type=Path, help="what environment/make.sh has made")
    parser.add_argument("--triton-python", help="an interpreter that has tritonclient[http,grpc]")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)


def main() -> None:
    options = arguments(__doc__, users=100, more=add_arguments)
    users, histories, _ = real_users(options.data)
    options.histories = histories[: options.users]
    processors, began = available_threads(), load()
    with tempfile.TemporaryDirectory() as options.folder:
        options.lines = Path(options.folder) / "histories.tsv"
        lines = zip(users, options.histories, strict=False)
        options.lines.write_text("".join(f"{user}\t{' '.join(items)}\n" for user, items in lines))
        result = asyncio.run(measure(options))
    print(f"{processors} processors, load {began:.1f} before and {load():.1f} after, K = {options.k}\n")
    rows = [
        [name, *(shown(found[kind]) if kind in found else "" for kind in ("over", "outside"))]
        for name, found in result["overhead"].items()
    ]
    print_table(["us of a request", f"over {PYTHON} (its own: the whole)", "outside the search"], rows)
    print()
    heads = ["users a second", *(f"{callers} callers" for callers in options.callers)]
    print_table(
        heads, [[way, *(f"{each:.1f}" for each in found.values())] for way, found in result["throughput"].items()]
    )
    print(busy(began, processors) or "")
    dump(options.output, msgspec.to_builtins(result | {"load": [began, load()], "processors": processors}))


if __name__ == "__main__":
    main()
