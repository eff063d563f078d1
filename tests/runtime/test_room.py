"""What memory holds of a batch, and what is said where it holds nothing."""

from collections.abc import Callable

import numpy as np
import pytest

from scripted_recommender import MODES, make, pairs
from scripted_search import random_catalog
from specbeam.catalog.errors import OptionError
from specbeam.engines.footprint import Footprint, Reading
from specbeam.runtime import Batching, DraftShape, Recommender, RequestFailure
from specbeam.runtime import room as room_module

ROWS = random_catalog(np.random.default_rng(0), 300, 3, 8)
FOOTPRINT = Footprint(slot=1000, token=500, pair=8, row=4000)
READER = Footprint(slot=1000, token=500, pair=8, row=4000, reading=Reading(slot=1000, token=500, pair=8, cross=4))
LOADED = 10**7  # bytes that are there whatever is searched
HISTORIES = [[f"i{(7 * user + n) % 300}" for n in range(1 + 3 * user)] for user in range(8)]
Resident = Callable[[int | None], None]


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> Resident:
    """Says how much memory the process has."""

    def say(size: int | None) -> None:
        monkeypatch.setattr(room_module, "resident_memory", lambda: size)

    say(LOADED)
    return say


def limited(left: float, **more: object) -> Recommender:
    """A recommender whose searches may take so many bytes."""
    limit = int((LOADED + left) / (1 - room_module.MARGIN)) + 1
    footprint = READER if more.get("reads") else FOOTPRINT
    return make(ROWS, footprint=footprint, memory=limit, **more)  # type: ignore[arg-type]


def needed(prompt: int, k: int, batch: int, *, call: int = room_module.USUAL_CALL) -> int:
    """What so many requests take at most."""
    found = limited(1e12)._room
    assert found is not None
    return found.needed(prompt, k, batch, call=call)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("left", [1e6, 3e6, 1e7])
def test_lists_are_those_of_unlimited_memory(mode: str, left: float, resident: Resident) -> None:
    expected = make(ROWS, verification=MODES[mode]).recommend(HISTORIES, 10)
    got = limited(left, verification=MODES[mode]).recommend(HISTORIES, 10)
    assert [pairs(each) for each in got] == [pairs(each) for each in expected]


@pytest.mark.parametrize("left", [1e6, 3e6, 1e7])
def test_so_are_those_of_prompts_that_an_encoder_reads(left: float, resident: Resident) -> None:
    expected = make(ROWS, reads=True).recommend(HISTORIES, 10)
    got = limited(left, reads=True).recommend(HISTORIES, 10)
    assert [pairs(each) for each in got] == [pairs(each) for each in expected]


def test_what_an_encoder_takes_and_leaves_counts(resident: Resident) -> None:
    room = limited(1e12, reads=True)._room
    assert room is not None
    one, more = (room.needed(prompt, 5, 1) for prompt in (10, 11))
    assert more - one == 2 * 1000  # read by both engines; slots of the decoders' caches stay as they are
    long = room.needed(10_000, 5, 1)
    assert long > 10_000 * (8 * 10_000 + 500 + 1000)
    assert room.needed(10_000, 5, 2) < 1.2 * long  # prompts are read one at a time, if need be


def test_a_batch_is_as_large_as_memory_holds(resident: Resident) -> None:
    sizes = []
    longest = 1 + 3 * len(HISTORIES[-1])  # tokens
    for left in (needed(longest, 10, batch) for batch in (1, 2, 4, 8)):
        recommender = limited(left)
        requests = [recommender.encode(history) for history in HISTORIES]
        parts = recommender._parts(requests, 10)
        assert [number for part in parts for number in part] == list(range(8))
        assert recommender.fitting(requests, 10) == len(parts[0])
        sizes.append(len(parts))
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3] == 1
    # A longer list, and a longer prompt, leave room for fewer.
    recommender = limited(needed(longest, 10, 4))
    requests = [recommender.encode(history) for history in HISTORIES]
    assert len(recommender._parts(requests, 200)) > len(recommender._parts(requests, 10))
    assert recommender.fitting(requests[:1] * 8, 10) > recommender.fitting(requests[-1:] * 8, 10)


def test_what_is_taken_meanwhile_counts(resident: Resident) -> None:
    recommender = limited(needed(70, 10, 6))
    requests = [recommender.encode(history) for history in HISTORIES]
    before = recommender.fitting(requests, 10)
    resident(LOADED + needed(70, 10, 3))
    assert recommender.fitting(requests, 10) < before


def test_a_request_that_memory_does_not_hold_fails_alone(resident: Resident) -> None:
    recommender = limited(needed(4, 5, 1) + 1000)
    requests = [recommender.encode(HISTORIES[0], k=5), recommender.encode(HISTORIES[1], k=290, user="u")]
    served, failed = recommender.run(requests)
    assert not isinstance(served, RequestFailure)
    assert isinstance(failed, RequestFailure)
    assert failed.user == "u"
    assert "a prompt of 13 tokens, a list of" in failed.reason
    assert "Allow more memory, or ask for a shorter list" in failed.reason
    assert recommender.too_large(requests[0]) is None


def test_drafts_that_lists_depend_on_are_reckoned_with(resident: Resident) -> None:
    strict, relaxed = (
        limited(4e6, verification=MODES[mode], shape=DraftShape(60, 3)) for mode in ("strict, full", "relaxed")
    )
    requests = [strict.encode(history) for history in HISTORIES]
    assert strict.fitting(requests, 10) > relaxed.fitting(requests, 10)


def test_other_verifications_and_catalogs_have_the_same_limit(resident: Resident) -> None:
    recommender = limited(1e6)
    requests = [recommender.encode(history) for history in HISTORIES]
    for other in (recommender.verifying(MODES["sampled"]), recommender.with_catalog(recommender.catalog)):
        assert other.fitting(requests, 10) < 8


def test_a_limit_below_what_is_loaded_says_what_to_expect(resident: Resident) -> None:
    with pytest.raises(OptionError, match=r"a limit of 5 MB leaves nothing .* have 10 MB already.* at least 1[0-9] MB"):
        make(ROWS, footprint=FOOTPRINT, memory=5_000_000)


def test_engines_of_which_nothing_is_known_are_refused(resident: Resident) -> None:
    with pytest.raises(OptionError, match="what calls of given take is not known"):
        make(ROWS, memory=10**9)
    resident(None)
    with pytest.raises(OptionError, match="there is no /proc"):
        make(ROWS, footprint=FOOTPRINT, memory=10**9)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2GB"])
def test_a_limit_is_a_whole_number_of_bytes(wrong: object) -> None:
    with pytest.raises(OptionError, match="a batch's memory is"):
        Batching(8, wrong)  # type: ignore[arg-type]
