"""The real Triton gives the lists that Python gives, over HTTP and over gRPC, by its own clients."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.triton import Triton
from specbeam.runtime import EngineChoice, Recommendation, Recommender, Verification
from specbeam.runtime.search.filters import ItemFilter
from tiny_bundle import Tiny
from triton_cases import ask

pytestmark = pytest.mark.services
PROTOCOLS = ("http", "grpc")
ROWS = 24


@pytest.fixture(scope="module")
def own(tiny: Tiny) -> Recommender:
    return Recommender.open(tiny.bundle, engine=EngineChoice(threads=1))


@pytest.fixture(scope="module")
def histories(tiny: Tiny) -> list[list[str]]:
    return [[tiny.item_ids[(7 * row + i) % 40] for i in range(1 + row % 6)] for row in range(ROWS)]


def check(found: dict[str, Any], expected: list[Recommendation], own: Recommender) -> None:
    assert "error" not in found, found
    columns = (found[name] for name in ("items", "titles", "scores", "positions"))
    for items, titles, scores, positions, one in zip(*columns, expected, strict=True):
        listed = [(entry.item, entry.title or "") for entry in one.items]
        size, rest = len(listed), len(items) - len(listed)
        assert list(zip(items, titles, strict=True)) == listed + [("", "")] * rest
        assert scores[:size] == pytest.approx([entry.score for entry in one.items], abs=1e-4)
        assert positions == [own.catalog.position[entry.item] for entry in one.items] + [-1] * rest


def padded(rows: list[list[Any]], fill: Any) -> list[list[Any]]:
    width = max(map(len, rows))
    return [[*row, *[fill] * (width - len(row))] for row in rows]


def test_each_history_by_itself_in_every_mode(
    triton_python: Path, running: Triton, own: Recommender, histories: list[list[str]], tmp_path: Path
) -> None:
    allow, deny = [str(i) for i in range(25)], ["3", "4"]
    filtered = {"k": 9, "allow": json.dumps(allow), "deny": json.dumps(deny), "exclude_history": True}
    drawn = Verification("sampled", seed=7, temperature=0.8)
    kinds: list[tuple[dict[str, Any], Verification, dict[str, Any]]] = [
        ({"k": 6}, Verification(), {}),
        ({"k": 6, "mode": "sampled", "seed": 7, "temperature": 0.8}, drawn, {}),
        (filtered, Verification(), {"item_filter": ItemFilter(allow, deny), "exclude_history": True}),
        ({**filtered, "mode": "sampled", "seed": 7, "temperature": 0.8}, drawn,
         {"item_filter": ItemFilter(allow, deny), "exclude_history": True}),
    ]  # fmt: skip
    users = [f"u{row}" for row in range(ROWS)]
    asks = [
        {"inputs": {"items": [history], "users": [user]}, "parameters": parameters}
        for parameters, _, _ in kinds
        for user, history in zip(users, histories, strict=True)
    ]
    told = ask(triton_python, running, "tiny", asks, tmp_path, callers=8)
    expected = [
        one
        for parameters, verification, more in kinds
        for one in own.verifying(verification).recommend(histories, parameters["k"], users=users, **more)
    ]
    for protocol in PROTOCOLS:
        for found, one in zip(told[protocol], expected, strict=True):
            check(found, [one], own)


def test_many_histories_in_one_request_however_they_are_told(
    triton_python: Path, running: Triton, own: Recommender, histories: list[list[str]], tmp_path: Path
) -> None:
    prompts = [own.encode(history).prompt.tolist() for history in histories]
    numbers = [[int(item) for item in row] for row in histories]
    asks = [
        {"inputs": {"items": padded(histories, ""), "k": [6]}},
        {"inputs": {"item_ids": padded(numbers, 39), "lengths": list(map(len, numbers))}, "parameters": {"k": 6}},
        {"inputs": {"tokens": padded(prompts, 0), "lengths": list(map(len, prompts)), "k": [6]}},
        {"inputs": {"item_ids": [row for row in numbers if len(row) == 3], "k": [6]}},
    ]
    told, expected = ask(triton_python, running, "tiny", asks, tmp_path), own.recommend(histories, 6)
    threes = [one for one, row in zip(expected, numbers, strict=True) if len(row) == 3]
    for protocol in PROTOCOLS:
        for found in told[protocol][:3]:
            check(found, expected, own)
        check(told[protocol][3], threes, own)
