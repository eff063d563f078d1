"""Teacher data: made part by part, gone on with where it stopped, and never mixed with another target's."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specbeam.align.teaching.searcher import truth_paths
from specbeam.catalog.errors import SpecBeamError
from specbeam.catalog.prompts.encoder import PromptEncoder
from store_cases import PART, SAMPLES, Lecture, Watched


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
