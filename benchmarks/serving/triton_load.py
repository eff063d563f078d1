"""What the real Triton bears: users a second and latency of closed loops, over HTTP and gRPC.

--tritonserver: the content of the wheel that `benchmarks.serving.triton` names. --triton-repository: a model
repository that `specbeam package-triton` wrote, the model's environment made. --triton-python: an interpreter that has
tritonclient[http,grpc], whose asynchronous clients ask. Beside them, the same loops over the Python call.
"""

import argparse
import asyncio
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.serving.contestants import asker
from benchmarks.serving.traffic import Seen, closed_loop, percentiles
from benchmarks.serving.triton import triton
from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.runtime import EngineChoice, Recommender
from specbeam.serve import AsyncRecommender, Serving
from specbeam.serve.editions import Edition

PROGRAM = Path(__file__).with_name("triton_callers.py")


def by_triton(options: argparse.Namespace, protocol: str, url: str, histories: list[list[str]], callers: int) -> Seen:
    work = {
        "protocol": protocol, "url": url, "model": options.model, "histories": histories, "k": options.k,
        "callers": callers, "seconds": options.seconds,
    }  # fmt: skip
    path = Path(options.folder) / "asked.json"
    path.write_text(json.dumps(work))
    done = subprocess.run([options.triton_python, PROGRAM, path], check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(done.stdout)
    return Seen(0, told["seconds"], told["latencies"], told["answered"])


def row(way: str, callers: int, seen: Seen) -> dict[str, Any]:
    found = percentiles(seen.latencies)
    times = {name: round(float(found[name].value), 1) for name in ("p50", "p95", "p99")}
    return {"way": way, "callers": callers, "users/s": round(seen.users_a_second, 1), **times}


def measured(options: argparse.Namespace, histories: list[list[str]]) -> list[dict[str, Any]]:
    rows = []
    serving = Serving(options.policy, size=options.size)
    engine = EngineChoice(options.engine, threads=options.threads)
    recommender = Recommender.open(options.bundle, engine=engine, batching=options.size)
    with AsyncRecommender(Edition("model", "1", "1", recommender), serving=serving) as served:
        for callers in options.callers:
            seen = asyncio.run(closed_loop(asker(served), histories, options.k, callers, options.seconds))
            rows.append(row("Python", callers, seen))
    with triton(options.tritonserver, options.triton_repository, Path(options.folder), [options.model]) as running:
        for name, url in {"http": running.http, "grpc": running.grpc}.items():
            for callers in options.callers:
                rows.append(row(f"Triton {name}", callers, by_triton(options, name, url, histories, callers)))
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tritonserver", type=Path, required=True)
    parser.add_argument("--triton-repository", type=Path, required=True)
    parser.add_argument("--triton-python", required=True)
    parser.add_argument("--model", help="in the repository (default: the bundle's folder)")
    parser.add_argument("--policy", default="in-flight", choices=["gathered", "in-flight"])
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--k", type=int, default=20)


def main() -> None:
    options = arguments(__doc__, users=500, more=add_arguments)
    options.model = options.model or options.bundle.name
    _, histories, _ = real_users(options.data)
    with tempfile.TemporaryDirectory() as options.folder:
        rows = measured(options, histories[: options.users])
    print(f"closed loops of {options.seconds:g} s, K = {options.k}; latency in milliseconds\n")
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    dump(options.output, rows)


if __name__ == "__main__":
    main()
