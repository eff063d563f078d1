"""Prompts: the assembled ids are the tokenizer's own, or the prompt is refused."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_cases import ids
from specbeam.catalog import PromptEncoder, PromptSpec
from specbeam.catalog.errors import PromptError

SPEC = PromptSpec(template="", separator="", prefix_ids=(1, 2), separator_ids=(3, 4), suffix_ids=(5,), history_length=3)


ITEMS = np.array([[10, 11], [20, 21], [30, 31], [40, 41]])


def test_encode_takes_the_most_recent_items_oldest_first():
    encoder = PromptEncoder(SPEC, ITEMS, 100)
    prompt = encoder.encode([0, 3, 1, 2])
    assert prompt.ids.tolist() == [1, 2, 40, 41, 3, 4, 20, 21, 3, 4, 30, 31, 5]
    assert prompt.ids.dtype == np.int64
    assert (prompt.kept, prompt.shortened) == (3, False)
    prompt = encoder.encode(np.array([2]))
    assert (prompt.ids.tolist(), prompt.kept, prompt.shortened) == ([1, 2, 30, 31, 5], 1, False)


def test_encode_shortens_to_the_context_and_says_so():
    assert PromptEncoder(SPEC, ITEMS, 13).encode([1, 2, 3]).shortened is False
    encoder = PromptEncoder(SPEC, ITEMS, 12)  # three items take 13 tokens
    assert encoder.max_items == 2
    prompt = encoder.encode([1, 2, 3])
    assert (prompt.ids.tolist(), prompt.kept, prompt.shortened) == ([1, 2, 30, 31, 3, 4, 40, 41, 5], 2, True)
    assert encoder.encode([1, 2]).shortened is False
    assert PromptEncoder(SPEC, ITEMS, 5).encode([1, 2]).ids.tolist() == [1, 2, 30, 31, 5]


def test_a_context_without_room_for_one_item_is_refused():
    with pytest.raises(PromptError, match=r"2 tokens and 3 tokens around the history, but the context leaves 4"):
        PromptEncoder(SPEC, ITEMS, 4)


def test_an_empty_history_is_refused():
    with pytest.raises(PromptError, match="empty"):
        PromptEncoder(SPEC, ITEMS, 100).encode([])


RAGGED = np.array([[10, -1, -1], [20, 21, 22], [30, 31, -1], [40, -1, -1]])


@given(
    st.sampled_from([ITEMS, RAGGED]),
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    *(ids, ids, ids),
    st.integers(1, 8),
    st.integers(0, 30),
)
def test_encode_agrees_with_a_plain_join(table, history, prefix, separator, suffix, length, room):
    items = [[token for token in row if token >= 0] for row in table.tolist()]
    spec = PromptSpec(
        template="", separator="", prefix_ids=prefix, separator_ids=separator, suffix_ids=suffix, history_length=length
    )

    def plain(count):
        joined = []
        for item in history[len(history) - count :]:
            joined += [*(separator if joined else ()), *items[item]]
        return [*prefix, *joined, *suffix]

    wanted = min(length, len(history))
    limit = len(prefix) + len(suffix) + max(map(len, items)) + room
    kept = max(count for count in range(1, wanted + 1) if len(plain(count)) <= limit)
    prompt = PromptEncoder(spec, table, limit).encode(history)
    assert (prompt.ids.tolist(), prompt.kept, prompt.shortened) == (plain(kept), kept, kept < wanted)


def test_every_token_of_the_context_is_used_by_items_of_unequal_length():
    encoder = PromptEncoder(SPEC, RAGGED, 12)
    assert encoder.encode([1, 2, 3]).kept == 2  # 1 and 2 and 3: 2 + 3 + 2 + 2 + 2 + 1 + 1 = 13 tokens
    assert encoder.encode([2, 3, 0]).kept == 3  # 2 + 2 + 2 + 1 + 2 + 1 + 1 = 11
    prompt = PromptEncoder(SPEC, RAGGED, 13).encode([1, 2, 3])
    assert prompt.ids.tolist() == [1, 2, 20, 21, 22, 3, 4, 30, 31, 3, 4, 40, 5]
    assert encoder.max_items == 3
    assert PromptEncoder(SPEC, RAGGED[:, [0, 1]], 8).max_items == 2  # the shortest: 2 + 1 + 2 + 1 + 1 = 7
    with pytest.raises(PromptError, match=r"one item of 3 tokens and 3 tokens around the history, .* leaves 5"):
        PromptEncoder(SPEC, RAGGED, 5)


def test_columns_without_any_token_do_not_matter():
    wide = np.pad(ITEMS, ((0, 0), (0, 2)), constant_values=-1)
    for limit in (5, 9, 13):
        prompts = [PromptEncoder(SPEC, table, limit).encode([0, 1, 2]).ids.tolist() for table in (ITEMS, wide)]
        assert prompts[0] == prompts[1]


def test_the_spec_survives_json():
    assert msgspec.json.decode(msgspec.json.encode(SPEC), type=PromptSpec) == SPEC
