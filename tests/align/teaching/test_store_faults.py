"""Teacher data that cannot be written, or was damaged."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from specbeam.align.teaching.lessons import Places
from specbeam.catalog.errors import SpecBeamError
from store_cases import PART, SAMPLES, Lecture, Watched

PARTS = -(-SAMPLES // PART)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"fingerprint": "x", "width": 1, "samples": 2, "part": 3, "z": 4}'])
def test_damaged_settings_are_named(lecture: Lecture, content: bytes) -> None:
    lecture.fill()
    (lecture.folder / "teacher.json").write_bytes(content)
    with pytest.raises(SpecBeamError, match=r"teacher.json is damaged: .* Remove .*trees: its trees are made anew"):
        lecture.store()


def full_disk(after: int, code: int = errno.ENOSPC) -> Callable[[int], None]:
    """An fsync that fails from its n-th call on."""
    calls = iter(range(10**6))

    def fsync(_: int) -> None:
        if next(calls) >= after:
            raise OSError(code, os.strerror(code))

    return fsync


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_full_disk_keeps_what_is_there(
    lecture: Lecture, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("specbeam.catalog.files.os.fsync", full_disk(1 + parts))  # the settings are the first file
        with pytest.raises(SpecBeamError) as caught:
            lecture.fill()
    for said in (str(lecture.folder), "No space left", f"{parts} of {PARTS} parts are there", "Free some space there",
                 "--teacher", "run the same command again"):  # fmt: skip
        assert said in str(caught.value)
    assert sorted(lecture.files()) == [*(f"part-{n:05d}.safetensors" for n in range(parts)), "teacher.json"]
    searcher = Watched(lecture.form)
    lecture.fill(searcher)
    assert sum(searcher.asked) == SAMPLES - parts * PART
    assert lecture.files() == whole


def test_a_disk_that_is_full_from_the_beginning(lecture: Lecture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.catalog.files.os.fsync", full_disk(0))
    with pytest.raises(
        SpecBeamError, match=r"could not be written to .*trees: No space left.* 0 of 3 parts .* Free some space"
    ):
        lecture.store()
    assert lecture.files() == {}


def test_another_fault_of_the_disk_is_said_as_it_is(lecture: Lecture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.catalog.files.os.fsync", full_disk(1, errno.EIO))
    with pytest.raises(SpecBeamError, match=r"Input/output error.* 0 of 3 parts .* Mend that"):
        lecture.fill()


def test_a_folder_that_cannot_be_one(lecture: Lecture) -> None:
    lecture.folder.write_text("a file")
    with pytest.raises(SpecBeamError, match=r"could not be written to .*trees"):
        lecture.store()


def test_what_the_settings_say(lecture: Lecture) -> None:
    lecture.fill()
    said = json.loads((lecture.folder / "teacher.json").read_text())
    assert {name: said[name] for name in ("width", "samples", "part")} == {"width": 5, "samples": 10, "part": 4}
    assert lecture.store().bytes() == sum(path.stat().st_size for path in lecture.folder.glob("part-*"))


def test_places_are_the_last_ones_and_others_of_their_histories() -> None:
    histories = [np.arange(length) for length in (1, 2, 3, 6, 0)]
    for windows, expected in (
        (1, {(1, 1), (2, 2), (3, 5)}),
        (9, {(1, 1), (2, 1), (2, 2), *((3, i) for i in range(1, 6))}),
    ):
        places = Places.choose(histories, windows, None, seed=0)
        found = list(zip(places.user.tolist(), places.place.tolist(), strict=True))
        assert len(found) == len(expected)
        assert set(found) == expected
    two = Places.choose(histories, 2, None, seed=0)
    assert sorted(np.bincount(two.user).tolist()) == [0, 1, 2, 2]
    assert (3, 5) in zip(two.user.tolist(), two.place.tolist(), strict=True)
    few = Places.choose(histories, 9, 3, seed=0)
    every = Places.choose(histories, 9, None, seed=0)
    assert few.place.tolist() == every.place[:3].tolist()
    assert every.digest() != few.digest() != Places.choose(histories, 9, 3, seed=1).digest()
    assert len(Places.choose([np.arange(1)], 3, None, seed=0)) == 0


def test_a_damaged_part_and_one_of_other_trees_are_made_anew(lecture: Lecture, whole: dict[str, bytes]) -> None:
    lecture.fill()
    damaged = lecture.folder / "part-00001.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 0xFF
    damaged.write_bytes(content)
    other = replace(lecture, folder=lecture.folder.with_name("other"), width=lecture.width - 1)
    other.fill()
    foreign = lecture.folder / "part-00000.safetensors"
    foreign.write_bytes((other.folder / foreign.name).read_bytes())
    assert lecture.store().missing() == [0, 1]
    lecture.fill()
    assert {name: lecture.files()[name] for name in whole} == whole
