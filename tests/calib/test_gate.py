"""The gate: what it measures, what it refuses, and which users it looks at."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.calib.data import read_examples, split
from specbeam.calib.gate import compare, refusal
from specbeam.catalog.errors import HistoryError, OptionError
from specbeam.catalog.histories.dataset import Example
from specbeam.engines.bundle.items import Bundle
from tiny_bundle import Tiny

ITEMS = [str(i) for i in range(40)]


def users(count: int, label: int = 0) -> list[Example]:
    return [Example(f"u{i}", ("1",), (ITEMS[label],)) for i in range(count)]


def test_the_same_lists_pass() -> None:
    lists = [tuple(ITEMS[:20])] * 30
    gate = compare(lists, lists, users(30))
    assert gate.passed
    assert (gate.requests, gate.users, gate.overlap) == (30, 30, {"10": 1.0, "20": 1.0})
    ndcg = gate.metrics["ndcg@10"]
    assert (ndcg.reference, ndcg.value, ndcg.low, ndcg.high) == (1.0, 1.0, 0.0, 0.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 20))
def test_overlap_is_the_share_of_the_originals_items(kept: int) -> None:
    gate = compare([tuple(ITEMS[:20])], [tuple(ITEMS[:kept] + ITEMS[20 : 40 - kept])], users(1))
    assert gate.overlap["20"] == pytest.approx(kept / 20)
    assert gate.overlap["10"] == pytest.approx(min(kept, 10) / 10)


def test_lists_that_overlap_too_little_are_refused_with_the_number() -> None:
    reference, candidate = [tuple(ITEMS[:20])] * 9, [tuple(ITEMS[:17] + ITEMS[20:23])] * 9
    gate = compare(reference, candidate, users(9))
    assert not gate.passed
    assert gate.metrics["ndcg@10"].low == 0
    message = str(refusal(gate, "static"))
    assert "int8 target (static) is not built: on 9 requests (9 users) its lists share 85.0% of their" in message
    assert "(at least 90%)" in message
    assert "--no-gate" in message
    assert "NDCG@10 is" not in message


def test_a_loss_that_the_interval_allows_is_refused() -> None:
    """Two of a hundred users lose their hit: 2 % of NDCG on average, up to 5 % in the interval."""
    reference = [tuple(ITEMS[:20])] * 100
    candidate = [(*ITEMS[1:20], "39")] * 2 + [tuple(ITEMS[:20])] * 98
    gate = compare(reference, candidate, users(100))
    ndcg = gate.metrics["ndcg@10"]
    assert ndcg.value == pytest.approx(0.98)
    assert ndcg.low is not None
    assert -0.07 < ndcg.low < -0.02
    assert not gate.passed
    assert f"may have fallen by {-ndcg.low:.1%} (95 % bound; at most 2%)" in str(refusal(gate, "dynamic"))
    assert gate.overlap["20"] > 0.99


def test_a_gain_passes() -> None:
    reference, candidate = [tuple(ITEMS[1:21])] * 50 + [tuple(ITEMS[:20])] * 50, [tuple(ITEMS[:20])] * 100
    gate = compare(reference, candidate, users(100))
    assert gate.passed
    assert gate.metrics["recall@20"].reference == 0.5


def test_without_a_hit_there_is_nothing_to_compare() -> None:
    lists = [tuple(ITEMS[:20])] * 5
    gate = compare(lists, lists, users(5, label=30))
    assert not gate.passed
    assert gate.metrics["ndcg@10"].low is None
    assert "none of the items that came next, so NDCG cannot be compared" in str(refusal(gate, "dynamic"))


def test_users_are_paired() -> None:
    """Hits differ much between users, and not at all between the two: the interval is empty, not wide."""
    rng = np.random.default_rng(0)
    lists = [tuple(rng.permutation(ITEMS)[:20].tolist()) for _ in range(40)]
    gate = compare(lists, lists, users(40))
    assert gate.metrics["ndcg@10"].low == gate.metrics["ndcg@10"].high == 0


def test_what_came_next_is_the_labels_or_the_last_item(tiny: Tiny, tmp_path: Path) -> None:
    catalog = Bundle.open(tiny.bundle).catalog()
    lines = [
        {"user": "labelled", "items": ["1", "2"], "labels": ["3"]},
        {"user": "plain", "items": ["1", "2", "3"]},
        {"user": "one item", "items": ["1"]},
        {"user": "unknown", "items": ["x", "y", "z"]},
        {"user": "unknown label", "items": ["1", "z"]},
    ]
    path = tmp_path / "h.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no json\n")
    examples, unusable = read_examples([path], catalog)
    assert [(e.user, e.history, tuple(e.labels)) for e in examples] == [
        ("labelled", ("1", "2"), ("3",)), ("plain", ("1", "2"), ("3",)),
    ]  # fmt: skip
    assert unusable == 4


def test_no_usable_history(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"user": "a", "items": ["1"]}\n{"user": "b", "items": ["x", "y"]}\n')
    with pytest.raises(HistoryError, match=r"h\.jsonl: 0 of 2 histories can be used; expected at least two"):
        read_examples([path], Bundle.open(tiny.bundle).catalog())


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 60), st.integers(1, 80), st.integers(1, 80), st.integers(0, 9))
def test_nobody_is_calibrated_on_and_compared(count: int, size: int, gate: int, seed: int) -> None:
    examples = [Example(f"u{i % 40}", ("1",), ("2",)) for i in range(count)]  # some users have two requests
    data = split(examples, size, gate, seed)
    calibrated, compared = {e.user for e in data.calibration}, {e.user for e in data.gate}
    assert not calibrated & compared
    assert 1 <= len(data.calibration) <= min(size, max(count // 2, 1))
    assert len(calibrated) == len(data.calibration)
    assert len(data.gate) <= gate
    assert split(examples, size, gate, seed) == data


def test_a_calibration_size_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="calibration size of 0; expected at least 1"):
        split(users(4), 0, 4, 0)


def test_a_datasets_folder_gives_all_its_splits(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(tiny.index.read_text())
    for split_name, items in (("train", "1 2 3"), ("valid", "4"), ("test", "5 6")):
        (tmp_path / f"sequential_{split_name}.txt").write_text(f"u {items}\n")
    examples, unusable = read_examples([tmp_path], Bundle.open(tiny.bundle).catalog())
    assert [(e.history, e.labels) for e in examples] == [
        (("0", "1", "2", "3"), ("4", "5")), (("0", "1", "2"), ("3",)), (("0", "1"), ("2",)),
    ]  # fmt: skip
    assert unusable == 0
    data = split(examples * 3, 2, 9, 0)  # one user: nobody is left to compare on
    assert (len(data.calibration), len(data.gate)) == (1, 0)
