"""What doctor proposes to serve a bundle with: threads, processes and batch, from the times of its engine's calls."""

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from commands import good
from specbeam.catalog.files import Frozen
from specbeam.engines.doctor.examine import examine
from specbeam.engines.doctor.health import Health, ServingSize
from specbeam.serve.sizing import proposed
from tiny_bundle import ENGINE, Tiny, edit_engine

BATCHES, PASTS, NEWS = (1, 2, 4, 8, 16), (0, 8), (1, 8, 16, 32)


def machine(health: Health, **changes: Any) -> Health:
    """The same on another machine: its processors that are usable, its memory that is available."""
    parts: dict[str, Frozen] = {
        "processors": replace(health.processors, usable=changes.get("usable", 4)),
        "memory": replace(health.memory, available=changes.get("available", 10**12), limit=None),
    }
    return replace(health, **parts)


def timed(bundle: Path, cost: Any, threads: int = 1) -> None:
    """Let the engine's calls have taken so many milliseconds, by their batch and new tokens."""
    points = [
        {"batch": b, "past": p, "new": n, "milliseconds": float(cost(b, n))}
        for b in BATCHES for p in PASTS for n in NEWS
    ]  # fmt: skip

    def change(facts: dict[str, Any]) -> None:
        facts["threads"] = threads
        facts["roles"]["target"]["latency"] = points

    edit_engine(bundle, change)


@pytest.fixture(scope="module")
def health(tiny: Tiny) -> Health:
    return examine(tiny.bundle)


def size(health: Health, bundle: Path, **changes: Any) -> ServingSize:
    assert health.bundle is not None
    found = proposed(machine(replace(health, bundle=replace(health.bundle, path=str(bundle))), **changes))
    assert found is not None
    return found


def test_calls_that_cost_the_same_however_many_share_them_are_shared_by_as_many_as_were_timed(
    health: Health, bundle: Path
) -> None:
    timed(bundle, lambda batch, new: 10)
    found = size(health, bundle)
    assert (found.batch, found.alone_ms, found.batch_ms) == (16, 30, 30)  # a prompt and two depths
    assert found.users_per_second == pytest.approx(found.workers * 16 / 0.030)


def test_calls_that_cost_as_many_times_as_much_are_not_shared(health: Health, bundle: Path) -> None:
    timed(bundle, lambda batch, new: 10 * batch)
    assert size(health, bundle).batch == 1


def test_a_batch_is_doubled_while_that_gains_a_tenth(health: Health, bundle: Path) -> None:
    gains = dict(zip(BATCHES, accumulate((10, 1.2, 1.2, 1.05, 1.5), lambda ms, gain: 2 * ms / gain), strict=True))
    timed(bundle, lambda batch, new: gains[batch])
    assert size(health, bundle).batch == 4


def test_processors_beyond_an_engines_threads_serve_in_processes_of_their_own(health: Health, bundle: Path) -> None:
    timed(bundle, lambda batch, new: 10, threads=2)
    assert [(s.threads, s.workers) for s in (size(health, bundle, usable=n) for n in (2, 5, 8))] == [
        (2, 1), (2, 2), (2, 4),
    ]  # fmt: skip
    alone = size(health, bundle, usable=1)
    assert (alone.threads, alone.workers) == (1, 1)
    assert "timed with 2 threads, and 1 run here" in alone.notes[0]
    assert "--threads 1" in alone.notes[0]


def test_memory_bounds_the_batch_and_the_processes(health: Health, bundle: Path) -> None:
    timed(bundle, lambda batch, new: 10)
    plenty = size(health, bundle)
    assert (plenty.batch, plenty.workers) == (16, 4)
    assert size(health, bundle, available=2 * plenty.memory).workers == 2
    tight = size(health, bundle, available=plenty.memory - 1)
    assert (tight.batch, tight.workers) == (8, 1)
    none = size(health, bundle, available=1)
    assert (none.batch, none.workers) == (1, 1)
    assert "one process takes about" in none.notes[-1]


def test_it_is_told_in_text_and_as_json(tiny: Tiny) -> None:
    told = good("doctor", tiny.bundle).stdout
    assert f"Serving\n  run        specbeam serve --engine {ENGINE} --threads 1 --batch-size " in told
    assert "users a second; a list takes" in told
    found = json.loads(good("doctor", tiny.bundle, "--json").stdout)["serving"]
    assert found["engine"] == ENGINE
    assert found["users_per_second"] > 0
    assert (found["top_k"], found["history"]) == (20, tiny.fits)


def test_nothing_is_proposed_where_nothing_runs(health: Health, bundle: Path) -> None:
    assert health.bundle is not None
    assert proposed(replace(health, bundle=None)) is None
    broken = tuple(replace(engine, runs=False) for engine in health.bundle.engines)
    assert proposed(replace(health, bundle=replace(health.bundle, engines=broken))) is None
    (bundle / "manifest.json").write_text("{")
    assert proposed(replace(health, bundle=replace(health.bundle, path=str(bundle)))) is None
