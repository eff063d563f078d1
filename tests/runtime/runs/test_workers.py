"""Processes that do pieces of work: their order, their errors, and that none of them outlives the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specbeam.catalog.errors import OptionError
from specbeam.runtime.runs.workers import WAITING, WorkerError, Workers
from worker_cases import Echo, alive, gone, refusing


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


def test_results_come_in_the_order_of_the_pieces(tmp_path: Path) -> None:
    with Workers.started(3, Echo(tmp_path)) as workers:
        assert len(pids(tmp_path)) == 3
        slow = [0.3, *range(20), 0.1]
        found = list(workers.results(slow))
        assert [piece for piece, _ in found] == slow
        assert {pid for _, pid in found} == set(pids(tmp_path)) - {os.getpid()}
        assert [piece for piece, _ in workers.results(["a", "b"])] == ["a", "b"]
        assert list(workers.results([])) == []
    assert not any(map(alive, pids(tmp_path)))


def test_results_are_held_back_to_a_bound() -> None:
    """While the first piece takes its time, the others' worker does not run ahead of what may be lost."""
    with Workers.started(2, Echo()) as workers:
        results = workers.results([0.5, *range(100)])
        next(results)
        given = sum(len(worker.given) for worker in workers._workers)
        assert given <= 2 * WAITING
        assert next(results)[0] == 0
        assert [piece for piece, _ in results] == list(range(1, 100))


def test_pieces_and_results_larger_than_any_buffer() -> None:
    with Workers.started(2, Echo()) as workers:
        pieces = [bytes([n]) * (8 << 20) for n in range(8)]
        assert [piece for piece, _ in workers.results(pieces)] == pieces


def test_errors_are_those_of_the_worker(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^cannot be opened$"), Workers.started(2, refusing):
        pytest.fail("opened")
    for piece, kind, message in (
        ("option", OptionError, "^of a worker$"), ("foreign", KeyError, "foreign"), ("stubborn", RuntimeError, "one"),
    ):  # fmt: skip
        with Workers.started(1, Echo(tmp_path)) as workers, pytest.raises(kind, match=message) as raised:
            list(workers.results([1, piece, 2]))
        if piece != "option":
            assert "in answer" in raised.value.__notes__[0]  # where it was raised
    assert not any(map(alive, pids(tmp_path)))


@pytest.mark.parametrize(("piece", "how"), [("die", "was ended by SIGKILL"), ("leave", "ended with status 7")])
def test_a_worker_that_dies_ends_the_run(tmp_path: Path, piece: str, how: str) -> None:
    with (
        Workers.started(2, Echo(tmp_path)) as workers,
        pytest.raises(WorkerError, match=rf"^A worker process \(\d+\) {how}; expected it to live as long as the run"),
    ):
        list(workers.results([1, 0.2, piece, *range(50)]))
    assert not any(map(alive, pids(tmp_path)))


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """However that ends, and in the middle of a piece; and the terminal's Ctrl-C does not reach them."""
    code = (
        "import sys; from specbeam.runtime.runs.workers import Workers; from pathlib import Path;"
        "from worker_cases import Echo\n"
        f"with Workers.started(2, Echo(Path({str(tmp_path)!r}))) as workers:\n"
        "    print('ready', flush=True)\n"
        "    list(workers.results([60.0, 60.0]))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    workers = pids(tmp_path)
    assert len(workers) == 2
    for worker in workers:
        assert os.getpgid(worker) != os.getpgid(process.pid)
        os.kill(worker, signal.SIGTERM)  # of who ends all processes there are
    time.sleep(0.1)
    assert all(map(alive, workers))
    process.kill()
    process.communicate()
    assert gone(workers)
