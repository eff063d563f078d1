"""Optimization profiles: the calls of a bundle as ranges of shapes, and everything that can be wrong with them."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from specbeam.catalog.errors import EngineError
from specbeam.engines.base import Engine, Float32, ForwardInputs, Int64
from specbeam.engines.bundle.facts import Limits, ModelFacts, Role, TensorRTFacts
from specbeam.engines.cache import KVCache
from specbeam.engines.latency import measure_latency
from specbeam.engines.tensorrt.profiles import (
    Profile,
    cache_bytes,
    check_memory,
    check_profiles,
    choose,
    input_axes,
    profiles_for,
)

FACTS = ModelFacts(
    architecture="LlamaForCausalLM", parameters=0, layers=3, kv_heads=2, head_dim=16, vocabulary=1000, context=512
)
LIMITS = Limits(max_batch=8, max_prompt=100, max_nodes=64, path=4)
LENGTH = 4
REBUILD = "specbeam build-engine BUNDLE --backend tensorrt --overwrite"


def check(profiles: Any, facts: ModelFacts = FACTS, limits: Limits = LIMITS, **inputs: Any) -> None:
    graph: dict[str, Any] = {**input_axes(FACTS, LIMITS.path), **inputs}
    graph = {name: axes for name, axes in graph.items() if axes is not None}
    check_profiles(profiles, facts, limits, graph, identifier_length=LENGTH, cache="fp16")


def changed(profile: Profile, name: str, *shapes: tuple[int, ...]) -> list[Profile]:
    return [replace(profile, shapes=profile.shapes | {name: shapes})]


def test_the_calls_of_a_target_and_of_a_draft() -> None:
    first, later = profiles_for("target", FACTS, LIMITS, LENGTH)
    assert (first.name, later.name) == ("prefill+verify", "verify")
    assert first.shapes["input_ids"] == ((1, 1), (4, 82), (8, 164))
    assert first.shapes["visible_slots"] == ((1, 1, 4), (4, 82, 4), (8, 164, 4))
    assert first.shapes["logit_rows"] == ((1, 1), (4, 32), (8, 65))
    assert first.shapes["past_key_values.2.value"] == ((1, 2, 0, 16), (4, 2, 1, 16), (8, 2, 100, 16))
    assert later.shapes["input_ids"] == ((1, 1), (4, 32), (8, 64))
    assert later.shapes["past_key_values.0.key"] == ((1, 2, 1, 16), (4, 2, 100, 16), (8, 2, 355, 16))
    assert [p.name for p in profiles_for("draft", FACTS, LIMITS, LENGTH)] == ["prefill", "draft step"]


@given(st.sampled_from(["target", "draft"]), st.integers(1, 32), st.integers(1, 200), st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_every_call_within_the_limits_has_a_profile(role: Role, batch: int, prompt: int, nodes: int, data: Any) -> None:
    limits = Limits(max_batch=batch, max_prompt=prompt, max_nodes=nodes, path=4)
    profiles = profiles_for(role, FACTS, limits, LENGTH)
    check(profiles, limits=limits)
    shared = data.draw(st.integers(0, prompt - 1))
    calls = [(shared, prompt - shared + data.draw(st.integers(0, nodes)))]
    past = prompt + nodes
    for _ in range(LENGTH - 1):
        new = data.draw(st.integers(1, nodes))
        calls.append((past, new))
        past += new
    for past, new in calls:
        rows = data.draw(st.integers(1, min(new, nodes)))
        index = choose(profiles, batch=data.draw(st.integers(1, batch)), past=past, new=new, rows=rows, rebuild=REBUILD)
        ranges = {axis: profiles[index].range(axis) for axis in ("sequence", "past", "rows")}
        assert all(
            ranges[axis][0] <= n <= ranges[axis][2] for axis, n in (("sequence", new), ("past", past), ("rows", rows))
        )


@pytest.mark.parametrize(
    ("call", "option"),
    [
        ({"batch": 9}, "--max-batch"),
        ({"new": 165}, "--max-nodes"),
        ({"past": 120, "new": 65}, "--max-nodes"),
        ({"rows": 66}, "--max-nodes"),
        ({"past": 356}, "--max-prompt"),
        ({"past": 350, "new": 20}, "--max-prompt"),
    ],
)
def test_calls_that_no_profile_takes(call: dict[str, int], option: str) -> None:
    profiles = profiles_for("target", FACTS, LIMITS, LENGTH)
    with pytest.raises(EngineError) as caught:
        choose(profiles, **({"batch": 1, "past": 0, "new": 80, "rows": 1} | call), rebuild=REBUILD)
    message = str(caught.value)
    assert option in message.partition("with a larger")[2]
    assert message.endswith(REBUILD)
    assert "verify: batch 1 to 8, sequence 1 to 64, past 1 to 355, rows 1 to 64" in message


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ({"max_batch": 0}, "--max-batch is 0, expected at least 1"),
        ({"max_prompt": 510}, "needs 3 of the model's 512 positions. Lower it to 509 or less"),
        ({"path": 3}, "room for 3 slots, and identifiers have 4 tokens"),
        ({"max_batch": 100_000}, "Lower --max-batch or --max-nodes"),
        ({"max_nodes": 40_000_000}, "a layer's largest cache has 81920"),
    ],
)
def test_limits_that_cannot_be(limits: dict[str, int], fault: str) -> None:
    chosen = replace(LIMITS, **limits)
    with pytest.raises(EngineError, match="Nothing was built") as caught:
        check(profiles_for("target", FACTS, chosen, LENGTH), limits=chosen)
    assert fault in str(caught.value)


def test_broken_profiles_are_told_all_at_once() -> None:
    profile = profiles_for("target", FACTS, LIMITS, LENGTH)[0]
    check([profile])
    faults = {
        "position_ids": (((1, 1), (9, 200), (8, 164)), "batch of position_ids must rise from least to most"),
        "visible_below": (((1, 2), (4, 82), (8, 164)), "sequence is (1, 82, 164) in input_ids and (2, 82, 164) in"),
        "visible_slots": (((1, 1, 4), (4, 82, 4), (8, 164, 5)), "visible_slots has a fixed axis of 4, shapes with"),
        "logit_rows": (((1,), (4,), (8,)), "logit_rows has 2 axes in the graph, shapes with 1, 1, 1"),
        "past_key_values.1.key": (((1, 2, 0, 16), (4, 2, 1, 16), (8, 2, 99, 16)), "past is (0, 1, 100) in"),
    }
    for name, (shapes, fault) in faults.items():
        with pytest.raises(EngineError) as caught:
            check(changed(profile, name, *shapes))
        assert fault in str(caught.value)
    broken = replace(profile, shapes=profile.shapes | {name: shapes for name, (shapes, _) in faults.items()})
    with pytest.raises(EngineError) as caught:
        check([broken])
    assert all(fault in str(caught.value) for _, fault in faults.values())


def test_profiles_that_do_not_fit_the_graph() -> None:
    profile = profiles_for("target", FACTS, LIMITS, LENGTH)[0]
    with pytest.raises(EngineError, match="the graph's input extra has no shapes"):
        check([profile], extra=("batch",))
    with pytest.raises(EngineError, match="has shapes for logit_rows, which the graph has not"):
        check([profile], logit_rows=None)
    with pytest.raises(EngineError, match=r"an axis 'past\+sequence', expected one of: batch, sequence, past, rows"):
        check([profile], visible_below=("batch", "past+sequence"))
    with pytest.raises(EngineError, match=r"rows \(1, 90, 165\) exceed sequence \(1, 82, 164\)"):
        check(changed(profile, "logit_rows", (1, 1), (4, 90), (8, 165)))


def test_what_a_cache_takes() -> None:
    needed = cache_bytes(FACTS, LIMITS, identifier_length=LENGTH, cache="fp16")
    assert needed == 2 * (3 * 2) * 8 * (100 + 4 * 64) * (2 * 16) * 2
    assert cache_bytes(FACTS, LIMITS, identifier_length=LENGTH, cache="fp32") == 2 * needed
    check_memory(FACTS, LIMITS, identifier_length=LENGTH, cache="fp16", total=needed)
    with pytest.raises(EngineError, match=r"8 requests with 356 slots each takes .* GiB .*Lower --max-batch"):
        check_memory(FACTS, LIMITS, identifier_length=LENGTH, cache="fp16", total=needed - 1)


def test_facts_are_json() -> None:
    facts = TensorRTFacts(
        version="10.16.1.11", compute_capability="9.0", version_compatible=False, hardware_compatible=False,
        limits=LIMITS, profiles=("prefill", "draft step"),
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(facts), type=TensorRTFacts) == facts


class Slots(KVCache):
    """A cache that holds nothing but its size."""

    batch, length = 0, 0

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def copy(self) -> "Slots":
        other = Slots(self.batch)
        other.length = self.length
        return other

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        assert slots is None
        self.batch = len(rows)

    def join(self, other: KVCache) -> None:
        raise NotImplementedError


class Choosing(Engine):
    """An engine that only chooses a profile, and refuses what none takes."""

    def __init__(self, role: Role, limits: Limits) -> None:
        super().__init__(columns=1)
        self.profiles = profiles_for(role, FACTS, limits, LENGTH)

    def new_cache(self, batch: int) -> Slots:
        return Slots(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, Slots)
        (batch, new), rows = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        choose(self.profiles, batch=batch, past=cache.length, new=new, rows=rows, rebuild=REBUILD)
        cache.length += new
        return np.zeros((batch, rows, 1), np.float32)


@pytest.mark.parametrize("role", ["target", "draft"])
@pytest.mark.parametrize("limits", [LIMITS, Limits(max_batch=1, max_prompt=400, max_nodes=8, path=4)])
def test_calls_are_timed_within_the_limits(role: Role, limits: Limits) -> None:
    points = measure_latency(Choosing(role, limits), FACTS, lambda done, total: None, limits)
    assert {point.batch for point in points} == {batch for batch in (1, 8) if batch <= limits.max_batch}
    assert max(point.new for point in points if point.past) == max(n for n in (8, 40) if n <= limits.max_nodes)
    assert max(point.new for point in points if not point.past) <= limits.max_prompt
