"""What serving learned, kept for the next process: what comes back, what is left aside, and what a lie may cost."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import asdict, replace

from kept_cases import SUBJECT, calls_of, frontier, learn, left, memory, planner
from planner_cases import drafts
from planning_cases import linear
from scripted_search import random_catalog, search
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.bundle.sealed import sealed
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.planning import kept as kept_module
from specbeam.runtime.planning.acceptance import Acceptance
from specbeam.runtime.planning.budget import DOSE, LOAN, LONGEST, RESERVE, Trials, Waiting
from specbeam.runtime.planning.costs import EVEN, SIZES
from specbeam.runtime.planning.kept import ENDING, WEIGHT, Kept, KeptPaces, Memory
from specbeam.runtime.planning.paces import RECALLED
from specbeam.runtime.planning.planner import Planner
from specbeam.runtime.planning.plans import Paces


def opened(path: Path) -> Kept:
    return msgspec.json.decode(path.read_bytes(), type=Kept)


def test_the_next_process_plans_as_this_one_did(tmp_path: Path) -> None:
    folder, first = tmp_path / "none" / "yet", planner()
    kept = memory(folder, first)
    learn(first, 30)
    first._keeper.recall(Paces((2.0,) * SIZES, (0.5,) * SIZES, 3.0))
    first._trials[10] = Trials.after(Waiting(100, 64))
    assert kept.keep() == ""
    second = planner()
    assert memory(folder, second).requests == second.acceptance.requests(10) == 30
    assert second._keeper.paces == first._keeper.paces
    assert second._trials[10].waiting == Waiting(100, 64)
    assert drafts(second.policy(1, 80, 10))
    assert second.policy(1, 80, 10) == first.policy(1, 80, 10) != planner().policy(1, 80, 10)


def test_what_earlier_processes_counted_weighs_no_more_than_so_many_requests(tmp_path: Path) -> None:
    for _ in range(3):
        path = left(tmp_path, WEIGHT - 1)
    (width,) = opened(path).acceptance.widths
    assert width.depths[0].requests == WEIGHT
    assert width.levels[0].trials[0] == WEIGHT  # the same shares
    one = planner()
    kept = memory(tmp_path, one)
    one._trials[10] = Trials(wait=10**6, due=10**6)
    kept.keep()
    two = planner()
    memory(tmp_path, two)
    assert two._trials[10].waiting == Waiting(LONGEST, LONGEST)


def test_two_that_end_one_after_another_both_count(tmp_path: Path) -> None:
    planners = [planner(), planner()]
    both = [memory(tmp_path, each) for each in planners]
    for each, kept, k in zip(planners, both, (10, 5), strict=True):
        learn(each, 20, k)
        learn(each, 15, 20)
        kept.keep()
    third = planner()
    memory(tmp_path, third)
    assert {k: each.requests for k, each in third.acceptance.counts.items()} == {10: 20, 5: 20, 20: 30}
    both[0].keep()  # nothing new
    assert opened(both[0].path).acceptance.widths[1].depths[0].requests == 20


WRITER = """
import sys
from pathlib import Path
from kept_cases import learn, memory, planner
for _ in range(40):
    one = planner()
    kept = memory(Path(sys.argv[1]), one)
    assert not kept.fault, kept.fault
    learn(one, 30, int(sys.argv[2]))
    assert not kept.keep(), kept.fault
"""


def test_writers_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    paths = os.pathsep.join(filter(None, sys.path))
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(k)], env={**os.environ, "PYTHONPATH": paths})
        for k in (5, 10)
    ]
    assert [each.wait() for each in running] == [0, 0]
    last = memory(tmp_path)
    assert not last.fault
    assert last.requests is not None
    assert last.requests >= WEIGHT
    assert [path.name for path in tmp_path.iterdir()] == [SUBJECT.file]


@pytest.mark.parametrize("field", sorted(asdict(SUBJECT)))
def test_another_subject_has_another_file(tmp_path: Path, field: str) -> None:
    path = left(tmp_path, 30)
    other = {"mode": "sampled", "scoring": "constrained", "drafter": "both", "reuse": False, "threads": 2, "schema": 2}
    subject = replace(SUBJECT, **{field: other.get(field, "other")})
    assert memory(tmp_path, subject=subject).requests is None
    path.rename(tmp_path / subject.file)  # and says whose it is
    assert memory(tmp_path, subject=subject).requests is None


def test_what_cannot_be_used_is_left_aside_and_replaced(tmp_path: Path) -> None:
    path = left(tmp_path, 30)
    whole, content = path.read_bytes(), opened(path)
    (width,) = content.acceptance.widths
    level = replace(width.levels[0], complete=tuple(2 * count for count in width.levels[0].trials))
    damaged = [
        replace(content, acceptance=replace(content.acceptance, widths=(replace(width, levels=(level,)),))),
        replace(content, acceptance=replace(content.acceptance, widths=(replace(width, depths=width.depths[:2]),))),
        replace(content, acceptance=replace(content.acceptance, grid=(1, 2))),
    ]
    texts = [whole.replace(b'"standing": 0.25', text) for text in (b'"standing": 1e9', b'"standing": null', b'"a": 1')]
    texts += [b"", whole[:-20], b"\xff\xfe", b"[" * 100_000, whole.replace(b'"requests": 30', b'"requests": 29')]
    for data in [*texts, *map(sealed, damaged)]:
        assert data != whole
        path.write_bytes(data)
        one = planner()
        kept = memory(tmp_path, one)
        assert "is not used" in kept.fault
        assert str(path) in kept.fault
        assert one.acceptance.requests(10) == 0
        learn(one, 7)
        assert kept.keep() == kept.fault
        assert memory(tmp_path).requests == 7


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    one = planner()
    kept = memory(file / "cache", one)
    learn(one, 20)
    assert "is not kept for the next run" in kept.keep()
    assert "SPECBEAM_CACHE" in kept.fault

    def full(*_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_module, "whole_file", full)
    kept = memory(tmp_path, one)
    learn(one, 20)
    assert "No space left" in kept.keep()
    monkeypatch.undo()
    kept.keep()
    assert memory(tmp_path).requests == 20  # what could not be kept then


def test_it_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(kept_module, "monotonic", lambda: now)
    one = planner()
    kept, written = memory(tmp_path, one), []
    monkeypatch.setattr(Memory, "_write", lambda self, learned: written.append(now))
    for second in range(400):
        now = float(second)
        one.effort.planning = 1e9 if second < 7 else 0.0  # no time for it
        kept.now_and_then()
    assert written == [7, 17, 37, 77, 137, 197, 257, 317, 377]


def test_old_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "MOST_FILES", 3)
    (tmp_path / "other").write_text("")
    for number in range(6):
        one = planner()
        kept = memory(tmp_path, one, replace(SUBJECT, threads=number + 1))
        learn(one, 20)
        kept.keep()
        os.utime(kept.path, (number, number))
    assert len(list(tmp_path.glob(f"*{ENDING}"))) == 3
    assert kept.path.exists()
    assert (tmp_path / "other").exists()


def lie(folder: Path, **changes: object) -> Planner:
    """A planner that begins with a file that says more than is true: nearly all that is drafted is needed."""
    path = left(folder, WEIGHT)
    path.write_bytes(sealed(replace(opened(path), standing=RESERVE, **changes)))
    one = planner()
    assert memory(folder, one).requests == WEIGHT
    return one


@pytest.mark.parametrize("paced", [False, True])
def test_a_lie_costs_no_more_than_a_cold_start(tmp_path: Path, paced: bool) -> None:
    """Drafts that are said to be good save no call; with paces, that are said to cost nothing."""
    one = lie(tmp_path, paces=KeptPaces.of(Paces(draft=(0.0,) * SIZES if paced else EVEN)))
    target, draft = (sum(call.seconds for call in calls_of(*count)) for count in ((4, 0), (0, 3)))
    plain, lost, drafted = max(1000 * target, one._made((1, 79, 10)).outlook.plain), 0.0, 0
    # The last that could be afforded may be dearer than was foreseen; and what is seen must outvote what is said.
    allowed = LOAN * plain + (1 + 2 * RECALLED * paced) * 1000 * draft
    for number in range(400):
        course = one.begin(np.full(1, 10), 80)
        tried = bool(course.plan(frontier([0], [10]))[0].any())
        calls = calls_of(4, 3 * tried)
        course.end(calls, sum(call.seconds for call in calls))
        lost, drafted = lost + 1000 * draft * tried, drafted + tried
        assert lost <= allowed + 2 * DOSE * plain * (number + 1)
    assert 0 < drafted < 40


def test_drafts_that_got_bad_are_found_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    trie = ItemTrie.build(random_catalog(rng, 2000, 4, 300))
    target, draft = (ScriptedEngine(len(trie.vocabulary), seed=1, disagreement=distance) for distance in (0.0, 1.0))

    def fresh() -> Planner:
        one = Planner(linear(10, 0.08), linear(3, 0.02), Acceptance(trie), tuned=True)  # affords what it wants
        one.effort.serving = 1e6
        return one

    before = fresh()
    kept = memory(tmp_path, before)
    learn(before, 10 * WEIGHT)
    kept.keep()
    after = fresh()
    memory(tmp_path, after)
    assert drafts(after.policy(8, 6, 10))
    served = 0
    while drafts(after.policy(8, 6, 10)):
        prompts = [rng.integers(0, 99, 6) for _ in range(8)]
        found, _, _ = search(trie, target, prompts, 10, draft=draft, planning=after)
        plain, _, _ = search(trie, target, prompts, 10)
        assert [[node for node, _ in one] for one in found] == [[node for node, _ in one] for one in plain]
        served += 8
        assert served <= 2 * WEIGHT
