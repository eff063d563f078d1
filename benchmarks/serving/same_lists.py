"""The same lists on every way: the command line, Python, async, /v1, /v2 and Triton's own client, 32 callers at once.

Run: python -m benchmarks.serving.same_lists [--bundle DIR] [--users 500] [--triton-python VENV/bin/python]
Strict and sampled (with a seed), each without and with filters (half of the catalog denied to all, and what the history
holds to each). Told is of how many users the list is the command line's by the tie rule of `specbeam evaluate`: entries
that differ by less than 1e-4 may swap, the last with one beyond the end as well. --triton-python: an interpreter that
has tritonclient[http,grpc]; with it, --tritonserver and --triton-repository (a repository that has the bundle by its
folder's name, environment made) add the real Triton over HTTP and gRPC. --prefix: where libspecbeam is installed; adds
C and C++.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.serving.contestants import add_options, kept_client, server
from benchmarks.serving.triton import triton
from benchmarks.serving.ways import calling, compiled
from benchmarks.shared import arguments, dump, print_table, real_users
from specbeam.evaluate.figures import same_list
from specbeam.runtime import EngineChoice, ItemFilter, Recommendation, Recommender, Verification
from specbeam.serve import AsyncRecommender, Serving
from specbeam.serve.editions import Edition

Ranked = tuple[list[str], list[float]]  # items and their scores, best first
PROGRAM = Path(__file__).with_name("triton_program.py")


@dataclass(frozen=True)
class Asked:
    """What is asked of all users."""

    users: list[str]
    histories: list[list[str]]
    k: int
    verification: Verification
    deny: tuple[str, ...]  # to all, and where there are some, what each one's history holds

    @property
    def wishes(self) -> dict[str, Any]:
        """As a body or a line has them."""
        mode = {"mode": "sampled", "seed": self.verification.seed} if self.verification.mode == "sampled" else {}
        return {"k": self.k, **mode, **({"deny": list(self.deny), "exclude_history": True} if self.deny else {})}

    @property
    def options(self) -> dict[str, Any]:
        """As `Recommender.recommend` has them."""
        return {"item_filter": ItemFilter(deny=self.deny), "exclude_history": True} if self.deny else {}


def ranked(result: Recommendation) -> Ranked:
    return [entry.item for entry in result.items], [entry.score for entry in result.items]


def told(entries: Sequence[dict[str, Any]]) -> Ranked:
    """Of JSON's."""
    return [entry["item"] for entry in entries], [entry["score"] for entry in entries]


def by_command(options: argparse.Namespace, asked: Asked) -> list[Ranked]:
    folder = Path(options.folder)
    lines = [{"user": user, "items": items} for user, items in zip(asked.users, asked.histories, strict=True)]
    (folder / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [
        "infer", options.bundle, folder / "h.jsonl", "-o", folder / "r.jsonl", "--top-k", asked.k, "--overwrite",
        "--verify", asked.verification.mode,
    ]  # fmt: skip
    for option in ("engine", "threads"):
        if getattr(options, option) is not None:
            command += [f"--{option}", getattr(options, option)]
    if asked.verification.seed is not None:
        command += ["--seed", asked.verification.seed]
    if asked.deny:
        (folder / "deny.txt").write_text("\n".join(asked.deny) + "\n")
        command += ["--deny", folder / "deny.txt", "--exclude-history"]
    subprocess.run([sys.executable, "-m", "specbeam.cli", *map(str, command)], check=True, capture_output=True)
    answers = [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]
    return [told(answer["items"]) for answer in answers]


def in_python(recommender: Recommender, asked: Asked) -> list[Ranked]:
    own = recommender.verifying(asked.verification)
    return [ranked(each) for each in own.recommend(asked.histories, asked.k, users=asked.users, **asked.options)]


async def by_callers(asked: Asked, ask: Callable[[str, list[str]], Awaitable[Ranked]], callers: int) -> list[Ranked]:
    """So many at once."""
    turn = asyncio.Semaphore(callers)

    async def one(user: str, history: list[str]) -> Ranked:
        async with turn:
            return await ask(user, history)

    return await asyncio.gather(*map(one, asked.users, asked.histories))


def by_future(served: AsyncRecommender, asked: Asked) -> Callable[[str, list[str]], Awaitable[Ranked]]:
    async def ask(user: str, history: list[str]) -> Ranked:
        wishes = {"k": asked.k, "user": user, "verification": asked.verification, **asked.options}
        return ranked(await served.recommend(history, **wishes))

    return ask


def by_v1(client: httpx.AsyncClient, asked: Asked) -> Callable[[str, list[str]], Awaitable[Ranked]]:
    async def ask(user: str, history: list[str]) -> Ranked:
        answer = await client.post("/v1/recommend", json={"user": user, "items": history, **asked.wishes})
        answer.raise_for_status()
        return told(answer.json()["items"])

    return ask


def by_v2(client: httpx.AsyncClient, model: str, asked: Asked) -> Callable[[str, list[str]], Awaitable[Ranked]]:
    async def ask(user: str, history: list[str]) -> Ranked:
        inputs = [
            {"name": "items", "datatype": "BYTES", "shape": [1, len(history)], "data": history},
            {"name": "users", "datatype": "BYTES", "shape": [1], "data": [user]},
        ]
        wishes = {key: json.dumps(value) if isinstance(value, list) else value for key, value in asked.wishes.items()}
        answer = await client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, "parameters": wishes})
        answer.raise_for_status()
        found = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        return found["items"], found["scores"]

    return ask


def by_triton(options: argparse.Namespace, protocol: str, url: str, model: str, asked: Asked) -> list[Ranked]:
    work = {
        "protocol": protocol, "url": url.removeprefix("http://"), "model": model,
        "callers": options.callers, "users": asked.users, "histories": asked.histories, "wishes": asked.wishes,
    }  # fmt: skip
    path = Path(options.folder) / "asked.json"
    path.write_text(json.dumps(work))
    done = subprocess.run([options.triton_python, PROGRAM, path], check=True, stdout=subprocess.PIPE, text=True)
    return [(items, scores) for items, scores in json.loads(done.stdout)]


def by_real_triton(options: argparse.Namespace, model: str, asked: Asked) -> dict[str, list[Ranked]]:
    """Over both protocols of the real server."""
    with triton(options.tritonserver, options.triton_repository, Path(options.folder), [model]) as running:
        urls = {"http": running.http, "grpc": running.grpc}
        return {f"Triton {name}": by_triton(options, name, url, model, asked) for name, url in urls.items()}


def by_library(options: argparse.Namespace, asked: Asked) -> dict[str, list[Ranked]]:
    """From C, and from C++."""
    folder, settings = Path(options.folder), {"engine": options.engine, "threads": options.threads}
    options.lines = folder / "histories.tsv"
    lines = zip(asked.users, asked.histories, strict=True)
    options.lines.write_text("".join(f"{user}\t{' '.join(items)}\n" for user, items in lines))
    mode = {key: value for key, value in asked.wishes.items() if key in ("mode", "seed")}
    words = [asked.k, json.dumps(mode, separators=(",", ":")) if mode else "-", int(bool(asked.deny)), "-"]
    if asked.deny:
        words[-1] = folder / "deny.txt"  # that the command line was told
    command = [compiled(options), options.bundle, json.dumps({k: v for k, v in settings.items() if v}), options.lines]
    found = {}
    with calling([*command, asked.k]) as caller:
        for name, way in {"C": "c", "C++": "cpp"}.items():
            told = caller.lists(" ".join(["lists", way, *map(str, words)]), len(asked.users))
            found[name] = [(line[::2], [float(score) for score in line[1::2]]) for line in told]
    return found


async def compare(options: argparse.Namespace, kinds: dict[str, Asked]) -> list[dict[str, Any]]:
    """How many lists of each kind, on each way, are those of the command line."""
    engine, serving = EngineChoice(options.engine, threads=options.threads), Serving(options.policy, size=options.size)
    recommender, model, rows = Recommender.open(options.bundle, engine=engine), options.bundle.name, []
    with AsyncRecommender(Edition(model, "1", "1", recommender), serving=serving) as served:
        async with server(options, serving) as (url, _), kept_client(url) as client:
            for kind, asked in tqdm(kinds.items(), desc="kinds", disable=None):
                expected = await asyncio.to_thread(by_command, options, asked)
                ways = {"Python": await asyncio.to_thread(in_python, recommender, asked)}
                for way, ask in {
                    "async": by_future(served, asked), "/v1": by_v1(client, asked), "/v2": by_v2(client, model, asked)
                }.items():  # fmt: skip
                    ways[way] = await by_callers(asked, ask, options.callers)
                if options.triton_python:
                    ways["tritonclient"] = await asyncio.to_thread(by_triton, options, "http", url, model, asked)
                if options.prefix:
                    ways |= await asyncio.to_thread(by_library, options, asked)
                if options.tritonserver:
                    ways |= await asyncio.to_thread(by_real_triton, options, model, asked)
                rows.append({"kind": kind, "users": len(expected), **counted(expected, ways)})
    return rows


def counted(expected: list[Ranked], ways: dict[str, list[Ranked]]) -> dict[str, int]:
    return {
        way: sum(same_list(*a, *b) for a, b in zip(lists, expected, strict=True)) for way, lists in ways.items()
    }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument("--policy", default="in-flight", choices=["gathered", "in-flight"])
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--triton-python", help="an interpreter that has tritonclient[http,grpc]")
    parser.add_argument("--prefix", help="where libspecbeam is installed")
    parser.add_argument("--tritonserver", type=Path, help="the wheel's content, see `benchmarks.serving.triton`")
    parser.add_argument(
        "--triton-repository", type=Path, help="with a model of the bundle's name, its environment made"
    )


def main() -> None:
    options = arguments(__doc__, users=500, more=add_arguments)
    users, histories, _ = real_users(options.data)
    users, histories = users[: options.users], histories[: options.users]
    items = sorted({item for history in histories for item in history})
    kinds = {
        f"{mode}{', filtered' if deny else ''}": Asked(users, histories, options.k, verification, tuple(deny))
        for mode, verification in {"strict": Verification(), "sampled": Verification("sampled", seed=7)}.items()
        for deny in ([], items[::2])
    }
    with tempfile.TemporaryDirectory() as options.folder:
        rows = asyncio.run(compare(options, kinds))
    print(f"lists that are the command line's by the tie rule, K = {options.k}, {options.callers} callers\n")
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    dump(options.output, rows)


if __name__ == "__main__":
    main()
