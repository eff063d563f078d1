"""What a cluster reads and needs, without one."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from commands import user, write
from specbeam.catalog.errors import HistoryError
from specbeam.catalog.histories.storage import Place, Remote
from specbeam.cluster.asked import Needs
from specbeam.cluster.reading import Ended, Input, Unread, histories, prompts
from specbeam.runtime.runs.partition import Key, Partition


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    named = {"a.jsonl": 5, "b.jsonl": 0, "c.jsonl": 3}
    return [write(tmp_path / name, *(user(f"{name[0]}{i}", i) for i in range(n))) for name, n in named.items()]


def told(input: Input, *skip: Key) -> list[tuple[Any, ...]]:
    """All pieces of all tasks: partitions by their users."""
    found = list[tuple[Any, ...]]()
    for task in input.tasks(range(len(input.streams))):
        for piece in input.pieces(task, frozenset(skip)):
            if isinstance(piece, Partition):
                found.append((tuple(piece.key), [entry.user for entry in piece.entries]))
            else:
                found.append(tuple(piece))
    return found


def of(places: list[Path], limit: int | None = None, size: int = 2) -> Input:
    found = histories(places, None, 0, limit)
    return Input(found.streams, found.read, found.limit, size)


def test_every_stream_is_cut_by_itself(files: list[Path]) -> None:
    everything = [
        ((0, 0), ["a0", "a1"]), ((0, 1), ["a2", "a3"]), ((0, 2), ["a4"]), (0, 3), (1, 0),
        ((2, 0), ["c0", "c1"]), ((2, 1), ["c2"]), (2, 2),
    ]  # fmt: skip
    assert told(of(files)) == everything
    skipped = told(of(files), Key(0, 1), Key(2, 0))
    assert skipped == [piece for piece in everything if piece[0] not in ((0, 1), (2, 0))]
    assert len(of(files).tasks([0, 2])) == 2


def test_a_limit_is_one_of_all_streams(files: list[Path]) -> None:
    assert told(of(files, limit=6)) == [
        ((0, 0), ["a0", "a1"]), ((0, 1), ["a2", "a3"]), ((0, 2), ["a4"]), (0, 3), (1, 0), ((2, 0), ["c0"]), (2, 1),
    ]  # fmt: skip
    assert of(files, limit=6).tasks([2]) == [[0, 1, 2]]


def test_windows_do_not_depend_on_the_workers() -> None:
    assert Input([], list, None).in_windows(8).partition == 4 * 32 * 8


def test_files_that_are_read_as_one_are_a_stream(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("train.txt", "valid.txt", "x.jsonl", "test.txt")]
    for path in paths:
        write(path, '{"user": "u", "items": ["1"]}' if path.suffix == ".jsonl" else "7 1")
    found = histories(paths, None, 0, None)
    assert found.names == [[str(path) for path in paths[:2]], [str(paths[2])], [str(paths[3])]]
    assert found.local


def test_a_stream_that_cannot_be_read_is_named(files: list[Path], tmp_path: Path) -> None:
    away = Remote(f"file://{tmp_path}/away.jsonl")
    places: list[Place] = [files[0], away, files[2]]
    found = histories([files[0], files[2]], None, 0, None)
    input = Input([[place] for place in places], found.read, None, 10)
    unread = [piece for piece in told(input) if len(piece) == 2 and piece[0] == 1]
    assert len(unread) == 1
    assert "away.jsonl: cannot be read" in unread[0][1]
    assert (2, 1) in told(input)  # the others are read


def test_one_that_breaks_off(files: list[Path]) -> None:
    def broken(stream: list[Place]) -> Iterator[int]:
        yield from range(5)
        raise HistoryError("cut")

    input = Input([[files[0]]], partial(broken), None, 2)
    found = list(input.pieces([0], frozenset()))
    assert [piece.entries for piece in found if isinstance(piece, Partition)] == [[0, 1], [2, 3]]
    assert found[-1] == Unread(0, "cut")  # its last partition is not complete, and is not done


def test_prompts_of_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path / f"{name}.jsonl", {"id": name, "prompt": "x"}, "no JSON")
    found = prompts([tmp_path], None)
    pieces = [piece for task in found.tasks([0, 1]) for piece in Input(found.streams, found.read, None, 9).pieces(
        task, frozenset()
    )]  # fmt: skip
    entries = [entry for piece in pieces if isinstance(piece, Partition) for entry in piece.entries]
    assert [(Path(entry.source).name, entry.line) for entry in entries] == [
        ("a.jsonl", 1), ("a.jsonl", 2), ("b.jsonl", 1), ("b.jsonl", 2)
    ]  # fmt: skip
    assert Ended(0, 1) in pieces


def test_how_many_workers_a_node_has_room_for() -> None:
    assert [Needs(2, 0).room({"CPU": cpus}) for cpus in (1.0, 2.0, 5.0)] == [0, 1, 2]
    assert Needs(1, 0).room({}) == 0
    assert [Needs(1, 1).room({"CPU": 8.0, "GPU": gpus}) for gpus in (0.0, 2.0)] == [0, 2]
    assert (str(Needs(1, 0)), str(Needs(4, 1))) == ("1 CPU", "4 CPUs and 1 GPU")
