"""The Python side of the C library: simple values in, statuses out. The library itself: tests/serve/cpp."""

import re
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from specbeam.catalog.errors import (
    BundleError,
    EngineError,
    HistoryError,
    OptionError,
    PoolError,
    SpecBeamError,
)
from specbeam.runtime import EngineChoice, ItemFilter, Recommendation, Recommender, Verification
from specbeam.serve.embedded import Answer, Embedded, Status, told
from specbeam.serve.errors import Cancelled, Closed, DeadlinePassed, Overloaded, TooLarge
from specbeam.serve.memory import NoRoom
from tiny_bundle import Tiny, break_rows

HEADER = Path(__file__).parents[2] / "serve" / "cpp" / "include" / "specbeam.h"


@pytest.fixture(scope="module")
def embedded(tiny: Tiny) -> Embedded:
    return Embedded(str(tiny.bundle), '{"threads": 1}')


@pytest.fixture(scope="module")
def own(tiny: Tiny) -> Recommender:
    return Recommender.open(tiny.bundle, engine=EngineChoice(threads=1))


def asked(
    embedded: Embedded, items: list[str], item_filter: ItemFilter | None = None, verification: str = ""
) -> Answer:
    over = Event()
    future = embedded.submit(items, 6, "ada", item_filter, True, 0, 0.0, verification, lambda done: over.set())
    assert over.wait(60)
    return embedded.answer(future)


def check(answer: Answer, embedded: Embedded, expected: Recommendation) -> None:
    assert [(one.item, one.title) for one in answer.items] == [(one.item, one.title) for one in expected.items]
    assert [embedded.item_ids[place] for place in answer.places] == [one.item for one in answer.items]
    assert answer.unknown_items == expected.unknown_items
    assert answer.target_calls > 0
    assert answer.seconds >= answer.waited >= 0


def test_lists_are_those_of_the_recommender(embedded: Embedded, own: Recommender, tiny: Tiny) -> None:
    items = [*tiny.item_ids[3:8], "unknown"]
    rule, sampled = ItemFilter(None, tiny.item_ids[:20]), Verification("sampled", seed=7)
    expected = own.recommend([items], 6, users=["ada"], exclude_history=True)[0]
    check(asked(embedded, items), embedded, expected)
    prepared = embedded.prepared(None, tiny.item_ids[:20])
    [expected] = own.verifying(sampled).recommend([items], 6, users=["ada"], item_filter=rule, exclude_history=True)
    check(asked(embedded, items, prepared, '{"mode": "sampled", "seed": 7}'), embedded, expected)


def test_arrays_are_those_of_the_recommender(embedded: Embedded, own: Recommender, tiny: Tiny) -> None:
    prompts = [own.encode(tiny.item_ids[:n]).prompt for n in (2, 5)]
    tokens = np.zeros((2, max(map(len, prompts))), np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    places, scores = embedded.recommend_arrays(tokens, np.array([len(each) for each in prompts]), 4, 0, 0.0)
    for row, expected in enumerate(own.recommend([tiny.item_ids[:n] for n in (2, 5)], 4)):
        assert [embedded.item_ids[place] for place in places[row]] == [one.item for one in expected.items]
        assert scores[row] == pytest.approx([one.score for one in expected.items], abs=1e-4)


def test_a_cancelled_request_says_so(embedded: Embedded, tiny: Tiny) -> None:
    future = embedded.submit(tiny.item_ids[:2], 3, None, None, False, 0, 0.0, "", lambda done: None)
    if future.cancel():
        with pytest.raises(Cancelled, match="cancelled"):
            embedded.answer(future)


def test_after_closing_answers_can_be_read_and_nothing_asked(tiny: Tiny) -> None:
    own = Embedded(str(tiny.bundle), "")
    future = own.submit(tiny.item_ids[:2], 3, None, None, False, 0, 0.0, "", lambda done: None)
    own.close(drain=True)
    assert len(own.answer(future).items) == 3
    own.close(drain=False)  # as the end of the process does
    with pytest.raises(Closed):
        own.submit(tiny.item_ids[:2], 3, None, None, False, 0, 0.0, "", lambda done: None)


def test_an_engine_that_gives_no_numbers_is_the_bundles_fault(bundle: Path) -> None:
    break_rows(bundle, slice(None))
    with pytest.raises(BundleError, match="gives NaN or infinity"):
        Embedded(str(bundle), "")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OptionError("o"), Status.INVALID), (HistoryError("h"), Status.INVALID), (PoolError("p"), Status.INVALID),
        (BundleError("b"), Status.BUNDLE), (Overloaded(3, 0.1), Status.OVERLOADED),
        (DeadlinePassed("d"), Status.TIMEOUT), (Cancelled("c"), Status.CANCELLED), (Closed("c"), Status.CLOSED),
        (EngineError("e"), Status.FAILED), (NoRoom("n"), Status.MEMORY), (MemoryError(), Status.MEMORY),
        (TooLarge("t"), Status.MEMORY),
        (SpecBeamError("s"), Status.INTERNAL), (ZeroDivisionError("z"), Status.INTERNAL),
    ],
)  # fmt: skip
def test_every_error_has_a_status(error: Exception, status: Status) -> None:
    found, message = told(error)
    assert found == status
    assert message


def test_statuses_are_the_headers() -> None:
    defined = dict(re.findall(r"SPECBEAM_([A-Z]+) = (\d+)", HEADER.read_text()))
    python = {status.name: str(status.value) for status in Status}
    assert defined == python | {"OK": "0", "PYTHON": "2"}
