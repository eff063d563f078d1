"""Teacher data: made part by part, gone on with where it stopped, and never mixed with another target's."""

import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specbeam.align.teaching import store as teach
from specbeam.align.teaching.lessons import Places
from specbeam.align.teaching.searcher import Searcher, truth_paths
from specbeam.align.teaching.store import fill, open_store
from specbeam.align.teaching.trees import Trees, TreeStore
from specbeam.align.training.samples import Format, PromptOptions
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime.types import NodeList
from tiny_models import identifier_tokens, make_tokenizer, tiny_catalog

SAMPLES, PART, WIDTH = 10, 4, 5
PARTS = -(-SAMPLES // PART)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach, "PART", PART)
    monkeypatch.setattr(teach, "BATCH", 3)


class Watched(Searcher):
    """A searcher that notes how many prompts it is asked for, and is interrupted at its n-th call."""

    def __init__(self, form: Format, at: int | None = None) -> None:
        engine = ScriptedEngine(len(form.identifiers.trie.vocabulary), seed=3)
        super().__init__(engine, form.identifiers.trie, form.spec.prefix_ids, WIDTH)
        self.asked: list[int] = []
        self._at = at

    def trees(self, prompts: Sequence[np.ndarray], also: NodeList | None = None) -> Trees:
        self.asked.append(len(prompts))
        if len(self.asked) == self._at:
            raise KeyboardInterrupt
        return super().trees(prompts, also)


@dataclass(frozen=True, eq=False)
class Lecture:
    """All that teacher data is made of; `store` opens its folder."""

    folder: Path
    target: Path
    form: Format
    places: Places
    width: int = WIDTH

    def store(self) -> TreeStore:
        return open_store(self.folder, [self.target], self.form, self.places, self.width)

    def fill(self, searcher: Searcher | None = None) -> list[tuple[int, int | None]]:
        """Make what lacks; returns what progress was told."""
        told: list[tuple[int, int | None]] = []
        fill(
            self.store(), searcher or Watched(self.form), self.places, self.form,
            lambda stage, done, total: told.append((done, total)),
        )  # fmt: skip
        return told

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@pytest.fixture
def lecture(tmp_path: Path) -> Lecture:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "model.safetensors").write_bytes(b"weights")
    catalog = Catalog.load(tiny_catalog(tmp_path / "index.json"), None)
    form = Format.compile(make_tokenizer(identifier_tokens()), catalog, PromptOptions(history_length=4))
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 40, rng.integers(2, 8)) for _ in range(6)]
    places = Places.choose(histories, 3, SAMPLES, seed=0)
    assert len(places) == SAMPLES
    return Lecture(tmp_path / "trees", tmp_path / "target", form, places)


@pytest.fixture
def whole(lecture: Lecture, tmp_path: Path) -> dict[str, bytes]:
    """The files of a run that nothing interrupts."""
    uninterrupted = replace(lecture, folder=tmp_path / "whole")
    uninterrupted.fill()
    return uninterrupted.files()


def test_every_place_has_the_tree_of_its_prompt(lecture: Lecture) -> None:
    assert lecture.fill() == [(0, 10), (4, 10), (8, 10), (10, 10)]
    store, places, trie = lecture.store(), lecture.places, lecture.form.identifiers.trie
    assert store.missing() == []
    encoder = PromptEncoder(lecture.form.spec, lecture.form.identifiers.tokens, lecture.form.longest)
    for sample in range(SAMPLES):
        history, item = places.history(sample), int(places.next_items([sample])[0])
        assert [*history, item] == places.histories[places.user[sample]][: len(history) + 1].tolist()
        truth = truth_paths(trie, trie.leaf_of[[item]])
        expected = Watched(lecture.form).trees([encoder.encode(history).ids], truth)
        got = store.read([sample])
        assert got.node.tolist() == expected.node.tolist()
        assert set(truth.node.tolist()) <= set(got.node.tolist())
        assert got.leaves.tolist() == expected.leaves.tolist()
        np.testing.assert_array_equal(got.logprob, expected.logprob.astype(np.float16).astype(np.float32))


def test_prompts_of_like_lengths_share_a_call(lecture: Lecture) -> None:
    searcher = Watched(lecture.form)
    lecture.fill(searcher)
    assert searcher.asked == [3, 1, 3, 1, 2]


@pytest.mark.parametrize(("call", "kept"), [(1, 0), (2, 0), (3, 1), (5, 2)])
def test_what_was_made_before_an_interruption_is_not_made_again(
    lecture: Lecture, whole: dict[str, bytes], call: int, kept: int
) -> None:
    with pytest.raises(SpecBeamError, match=rf"Interrupted with {kept} of .* run the same command again"):
        lecture.fill(Watched(lecture.form, at=call))
    parts = sorted(lecture.folder.glob("part-*"))
    assert len(parts) == kept
    before = [path.stat().st_ino for path in parts]
    searcher = Watched(lecture.form)
    told = lecture.fill(searcher)
    assert [path.stat().st_ino for path in parts] == before
    assert sum(searcher.asked) == SAMPLES - kept * PART
    assert told[0] == (kept * PART, SAMPLES)
    assert told[-1] == (SAMPLES, SAMPLES)
    assert lecture.files() == whole


def test_nothing_is_made_twice(lecture: Lecture, whole: dict[str, bytes]) -> None:
    lecture.fill()
    searcher = Watched(lecture.form, at=1)
    assert lecture.fill(searcher) == [(SAMPLES, SAMPLES)]
    assert searcher.asked == []
    assert lecture.files() == whole


def test_a_part_that_was_lost_is_made_anew(lecture: Lecture, whole: dict[str, bytes]) -> None:
    lecture.fill()
    (lecture.folder / "part-00001.safetensors").unlink()
    searcher = Watched(lecture.form)
    assert lecture.fill(searcher) == [(6, 10), (10, 10)]
    assert sum(searcher.asked) == PART
    assert lecture.files() == whole


def other_target(lecture: Lecture) -> Lecture:
    (lecture.target / "model.safetensors").write_bytes(b"other weights")
    return lecture


def other_histories(lecture: Lecture) -> Lecture:
    histories = [history[::-1].copy() for history in lecture.places.histories]
    return replace(lecture, places=replace(lecture.places, histories=histories))


def other_prompts(lecture: Lecture) -> Lecture:
    return replace(lecture, form=replace(lecture.form, spec=_changed(lecture.form.spec, history_length=3)))


def _changed(spec: Any, **changes: Any) -> Any:
    return type(spec)(**{name: changes.get(name, getattr(spec, name)) for name in spec.__struct_fields__})


def fewer_places(lecture: Lecture) -> Lecture:
    places = lecture.places
    return replace(lecture, places=replace(places, user=places.user[:9], place=places.place[:9]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_target, "fingerprint target"),
        (other_histories, "fingerprint target"),
        (other_prompts, "fingerprint target"),
        (fewer_places, "samples 10, now 9"),
        (lambda lecture: replace(lecture, width=6), r"\(width 5, now 6\)"),
    ],
)
def test_trees_of_something_else_are_not_mixed(
    lecture: Lecture, change: Callable[[Lecture], Lecture], message: str
) -> None:
    lecture.fill()
    before = lecture.files()
    with pytest.raises(SpecBeamError, match=message) as caught:
        change(lecture).fill(Watched(lecture.form, at=1))
    assert "holds other trees" in str(caught.value)
    assert "choose another --teacher" in str(caught.value)
    assert lecture.files() == before


def test_the_same_histories_and_places_are_the_same_trees(lecture: Lecture) -> None:
    lecture.fill()
    copied = replace(lecture.places, histories=[history.copy() for history in lecture.places.histories])
    replace(lecture, places=copied).fill(Watched(lecture.form, at=1))


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


# --- which places


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
