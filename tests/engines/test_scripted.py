"""The scripted engine: a definition that no mask, position, slot or cache can fake."""

import numpy as np
import pytest

from join_cases import check_join
from specbeam.engines import base
from specbeam.engines.base import ForwardInputs
from specbeam.engines.scripted import ScriptedEngine

TOKENS = np.array([[7, 8, 9, 7, 5], [1, 2, 3, 4, 5]])


def causal(tokens: np.ndarray, past: int, rows: list[int]) -> ForwardInputs:
    """A plain call of tokens [B, T] behind `past` slots, all of them visible."""
    batch, new = tokens.shape
    positions = np.broadcast_to(np.arange(past, past + new), (batch, new))
    return ForwardInputs(tokens, positions, *base.causal(past, new, batch), np.array([rows] * batch))


def test_equals_its_definition_whatever_the_calls() -> None:
    engine = ScriptedEngine(6, seed=3)
    cache = engine.new_cache(2)
    assert (cache.batch, cache.length) == (2, 0)
    whole = engine.forward(causal(TOKENS, 0, [0, 2, 4]), cache)
    assert (cache.batch, cache.length, whole.shape, whole.dtype) == (2, 5, (2, 3, 6), np.float32)
    parts = engine.new_cache(2)
    engine.forward(causal(TOKENS[:, :2], 0, [0]), parts)
    last = engine.forward(causal(TOKENS[:, 2:], 2, [0, 2]), parts)
    for b in range(2):
        expected = [engine.logprobs_after(TOKENS[b, :n]) for n in (1, 3, 5)]
        np.testing.assert_array_equal(whole[b], expected)
        np.testing.assert_array_equal(last[b], expected[1:])
    assert len({float(value) for value in whole.ravel()}) == whole.size  # contexts differ, columns too


def test_a_tree_in_one_call_equals_its_paths() -> None:
    """Slots 0, 1: the prompt; 2 and 3: two children of it; 4: a child of 3."""
    engine = ScriptedEngine(6)
    inputs = ForwardInputs(
        np.array([[7, 8, 20, 30, 31]]), np.array([[0, 1, 2, 2, 3]]), np.array([[1, 2, 2, 2, 2]]),
        np.array([[[-1, -1], [-1, -1], [2, -1], [3, -1], [3, 4]]]), np.array([[1, 2, 3, 4]]),
    )  # fmt: skip
    got = engine.forward(inputs, engine.new_cache(1))[0]
    paths = [[7, 8], [7, 8, 20], [7, 8, 30], [7, 8, 30, 31]]
    np.testing.assert_array_equal(got, [engine.logprobs_after(np.array(path)) for path in paths])


def test_keep_moves_rows_and_closes_holes() -> None:
    engine = ScriptedEngine(6)
    cache = engine.new_cache(2)
    engine.forward(causal(TOKENS, 0, [4]), cache)
    cache.keep(np.array([1]), np.array([[0, 1]]))  # the second row's first two slots
    assert (cache.batch, cache.length) == (1, 2)
    got = engine.forward(causal(np.array([[50]]), 2, [0]), cache)[0, 0]
    np.testing.assert_array_equal(got, engine.logprobs_after(np.array([1, 2, 50])))
    cache.keep(np.array([0, 0]))
    assert (cache.batch, cache.length) == (2, 3)


@pytest.mark.parametrize("fault", ["mask", "position", "token"])
def test_a_wrong_call_gives_wrong_values(fault: str) -> None:
    engine = ScriptedEngine(6)
    right = causal(TOKENS, 0, [4])
    tokens, positions, below = right.input_ids.copy(), right.position_ids.copy(), right.visible_below.copy()
    slots = np.full((2, 5, 3), -1)
    if fault == "mask":
        below[:, 4], slots[:, 4] = 1, [2, 3, 4]  # all but slot 1
    elif fault == "position":
        positions[:, 2] += 1
    else:
        tokens[:, 0] += 1
    got = engine.forward(ForwardInputs(tokens, positions, below, slots, right.logit_rows), engine.new_cache(2))[0, 0]
    assert np.abs(got - engine.logprobs_after(TOKENS[0])).max() > 0.1


def test_calls_that_no_model_could_answer_are_refused() -> None:
    engine = ScriptedEngine(6)
    right = causal(TOKENS, 0, [4])

    def call(below: int) -> None:
        visible = right.visible_below.copy()
        visible[1, 3] = below
        inputs = ForwardInputs(right.input_ids, right.position_ids, visible, right.visible_slots, right.logit_rows)
        engine.forward(inputs, engine.new_cache(2))

    with pytest.raises(ValueError, match="computed after it"):
        call(5)
    with pytest.raises(ValueError, match="sees nothing"):
        call(0)


def test_log_probabilities_leave_room_for_other_tokens() -> None:
    engine = ScriptedEngine(9, seed=1)
    logprobs = engine.logprobs_after(np.array([4, 5]))
    assert logprobs.shape == (9,)
    assert 0.01 < np.exp(logprobs).sum() < 1
    flat = ScriptedEngine(9, seed=1, sharpness=0.01).logprobs_after(np.array([4, 5]))
    assert np.ptp(flat) < 0.1 < np.ptp(logprobs)


def test_disagreement_goes_from_the_same_to_unrelated() -> None:
    contexts = np.random.default_rng(0).integers(0, 50, (200, 4))

    def rows(**options: float) -> np.ndarray:
        engine = ScriptedEngine(20, seed=5, **options)
        return np.stack([engine.logprobs_after(context) for context in contexts])

    target = rows()
    np.testing.assert_array_equal(target, rows(disagreement=0.0))
    agreement = [(target.argmax(1) == rows(disagreement=d).argmax(1)).mean() for d in (0.1, 0.4, 1.0)]
    assert 1 > agreement[0] > agreement[1] > agreement[2]
    assert agreement[0] > 0.5
    assert agreement[2] < 0.2  # one in twenty by chance


def test_caches_join() -> None:
    check_join(ScriptedEngine(12, seed=3))
