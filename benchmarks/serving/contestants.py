"""What is measured: ways to serve, at the Python level in this process, or over HTTP in a process of its own."""

import asyncio
import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.serving.traffic import Ask, Shed
from specbeam.runtime import EngineChoice, Recommender
from specbeam.serve import AsyncRecommender, Overloaded, Serving
from specbeam.serve.editions import Edition

PATIENT = 120.0  # seconds: whoever takes longer is broken


def ways(names: Sequence[str], size: int, queue: int) -> dict[str, Serving]:
    """Ways to serve, by name."""
    known = {
        "gathered": Serving("gathered", size=size, queue=queue),
        "in-flight": Serving("in-flight", size=size, queue=queue),
        "one by one": Serving("gathered", size=1, queue=queue),
    }
    return {name: known[name] for name in names}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=8, help="requests that share a call (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=32, help="requests that wait, at most (default: %(default)s)")


@asynccontextmanager
async def in_process(options: Namespace, servings: dict[str, Serving]) -> AsyncIterator[dict[str, Ask]]:
    """All of them, on the same engines: only one is asked at a time."""
    engine = EngineChoice(options.engine, threads=options.threads)
    recommender = Recommender.open(options.bundle, engine=engine, batching=options.size)
    served = {
        name: AsyncRecommender(Edition("model", "1", "1", recommender), serving=serving)
        for name, serving in servings.items()
    }
    try:
        yield {name: asker(one) for name, one in served.items()}
    finally:
        for one in served.values():
            one.close()


def asker(served: AsyncRecommender) -> Ask:
    async def ask(history: list[str], k: int) -> object:
        try:
            return await served.serve(history, k=k)
        except Overloaded as error:
            raise Shed from error

    return ask


@asynccontextmanager
async def over_http(options: Namespace, servings: dict[str, Serving]) -> AsyncIterator[dict[str, Ask]]:
    """A server each, and one client that keeps its connections."""
    async with AsyncExitStack() as stack:
        asks = {}
        for name, serving in servings.items():
            url, _ = await stack.enter_async_context(server(options, serving))
            client = await stack.enter_async_context(kept_client(url))
            asks[name] = poster(client)
        yield asks


def kept_client(url: str, connections: int = 256) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=url, timeout=PATIENT, limits=limits)


def poster(client: httpx.AsyncClient) -> Ask:
    async def ask(history: list[str], k: int) -> object:
        answer = await client.post("/v1/recommend", json={"items": history, "k": k})
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise Shed
        answer.raise_for_status()
        return answer.content

    return ask


@asynccontextmanager
async def server(
    options: Namespace, serving: Serving, more: Sequence[str] = ()
) -> AsyncIterator[tuple[str, subprocess.Popen[str]]]:  # fmt: skip
    """`specbeam serve` in a process of its own: where it listens, and the process; it is ready."""
    command = [
        sys.executable, "-m", "specbeam.cli", "serve", options.bundle, "--port", 0, "--policy", serving.policy,
        "--batch-size", serving.size, "--queue", serving.queue, "--timeout-ms", int(1000 * PATIENT), *more,
    ]  # fmt: skip
    for option in ("engine", "threads"):
        if getattr(options, option) is not None:
            command += [f"--{option}", getattr(options, option)]
    log = Path(options.folder) / f"serve-{serving.policy}-{serving.size}.log"
    with log.open("w") as writing:
        process = subprocess.Popen([str(word) for word in command], stderr=writing, text=True)
    try:
        yield await _ready(process, log), process
    finally:
        process.terminate()
        process.wait(PATIENT)


async def _ready(process: "subprocess.Popen[str]", log: Path) -> str:
    """Its address, once it serves."""
    for _ in range(int(10 * PATIENT)):
        events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        if any(event.get("event") == "ready" for event in events):
            return str(next(event["url"] for event in events if event["event"] == "listening"))
        if process.poll() is not None:
            break
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the server did not get ready:\n{log.read_text()[-2000:]}")
