"""The fuzzer itself: it finds what it is there to find."""

import json
import time

from fuzzing import fuzz, mutated, mutated_json
from specbeam.catalog.errors import HistoryError

SEEDS = [b'{"user": "u", "items": ["1", "2"], "k": 3}', b'{"user": "v", "items": []}']


def test_mutations_are_many_and_the_same_for_a_seed() -> None:
    for make in (mutated, mutated_json):
        inputs = list(make(SEEDS, 300, seed=1))
        assert inputs == list(make(SEEDS, 300, seed=1))
        assert inputs != list(make(SEEDS, 300, seed=2))
        assert len(set(inputs)) > 150
        assert any(len(data) > 5000 for data in inputs)


def test_json_lines_stay_lines() -> None:
    for data in mutated_json([b"\n".join(SEEDS) + b"\n"], 50, lines=True):
        assert data.count(b"\n") == 2


def test_foreign_exceptions_hangs_and_memory_are_found() -> None:
    def use(data: bytes) -> None:
        if data == b"ours":
            raise HistoryError("no")
        if data == b"hang":
            while True:
                time.sleep(0.01)
        if data == b"large":
            bytearray(1 << 33)
        json.loads(data)

    report = fuzz(use, [b"1", b"ours", b"hang", b"large", b"{"], seconds=0.2)
    assert (report.inputs, report.accepted, report.refused) == (5, 1, 1)
    kinds = list(report.kinds())
    assert kinds[0] == "hang"
    assert kinds[1].startswith("MemoryError at test_fuzzing.py")
    assert kinds[2].startswith("JSONDecodeError at decoder.py")
