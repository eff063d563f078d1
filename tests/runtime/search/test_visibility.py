"""The attention mask of one call, against its definition slot by slot."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specbeam.engines.attention_mask import MASK_TYPES, MaskType, dense_mask
from specbeam.engines.torch import DTYPES, additive_mask
from specbeam.runtime.search.visibility import tree_visibility

NOBODY = np.empty(0, np.int64)


def tree_mask(mask_type: MaskType, lengths: np.ndarray, past: int, prompt: int, *tree: Any) -> np.ndarray:
    """Both steps: who sees what, and its dense form."""
    return dense_mask(*tree_visibility(lengths, past, prompt, *tree), past, mask_type)


def visible(mask: np.ndarray) -> np.ndarray:
    """[B, T, S] which slots each query sees."""
    assert mask.shape[1] == 1
    return mask[:, 0] == 0


def test_first_call_by_hand() -> None:
    """Two prompts of 3 and 2 tokens, padded to 3; the first has a node (slot 3) and its child (slot 4)."""
    mask = tree_mask(
        MASK_TYPES["fp32"], np.array([3, 2]), 0, 3, 2,
        np.array([0, 0]), np.array([3, 4]), np.array([[3, -1, -1], [3, 4, -1]]),
    )  # fmt: skip
    assert visible(mask).astype(int).tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]],
    ]


def test_later_call_by_hand() -> None:
    """Slots 0 to 2 are prompts, 3 a node of an earlier call, 4 a hole; the new node (slot 5) is its child."""
    mask = tree_mask(
        MASK_TYPES["fp32"], np.array([3, 1]), 5, 0, 1,
        np.array([0]), np.array([0]), np.array([[3, 5]]),
    )  # fmt: skip
    assert visible(mask).astype(int).tolist() == [[[1, 1, 1, 1, 0, 1]], [[1, 0, 0, 0, 0, 0]]]


def test_first_call_behind_a_shared_beginning_by_hand() -> None:
    """Slots 0 and 1 are cached and shared; prompts of 4 and 3 tokens bring slots 2 and 3; slot 4 is a node."""
    mask = tree_mask(
        MASK_TYPES["fp32"], np.array([4, 3]), 2, 2, 1,
        np.array([1]), np.array([2]), np.array([[4, -1]]),
    )  # fmt: skip
    assert visible(mask).astype(int).tolist() == [
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]],
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]],
    ]


@pytest.mark.parametrize(("name", "dtype"), [("fp32", np.float32), ("fp16", np.float16), ("bf16", np.uint16)])
def test_types(name: str, dtype: type) -> None:
    mask = tree_mask(MASK_TYPES[name], np.array([2]), 0, 2, 0, NOBODY, NOBODY, np.empty((0, 2), np.int64))
    assert mask.dtype == dtype
    hidden = mask[0, 0, 0, 1]
    if name == "bf16":  # the upper half of a float32's bits
        hidden = (mask.astype(np.uint32) << 16).view(np.float32)[0, 0, 0, 1]
        assert hidden == pytest.approx(np.finfo(np.float32).min, rel=0.01)
    else:
        assert hidden == np.finfo(dtype).min
    assert np.isfinite(hidden)
    assert (mask[0, 0] == 0).tolist() == [[True, False], [True, True]]


@given(seed=st.integers(0, 10**6), batch=st.integers(1, 4), first=st.booleans(), nodes=st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_definition(seed: int, batch: int, first: bool, nodes: int) -> None:
    """A node sees its prompt and its path; nothing real sees padding; every row sees something."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, batch)
    padded = int(lengths.max())
    shared = int(rng.integers(0, lengths.min()))  # cached before the first call
    past, prompt = (shared, padded - shared) if first else (padded + int(rng.integers(0, 5)), 0)
    row = np.sort(rng.integers(0, batch, rng.integers(0, batch * nodes + 1))) if nodes else NOBODY
    query = np.array([prompt + sum(row[:i] == owner) for i, owner in enumerate(row)], np.int64)
    width = int(query.max(initial=prompt - 1)) + 1 - prompt
    old = np.arange(padded, past + prompt)  # slots of nodes of earlier calls (a first call has none)
    paths = np.full((len(row), 3), -1)
    for i in range(len(row)):
        if len(old):
            paths[i, 0] = rng.choice(old)
        paths[i, 1] = past + query[i]
    seen = visible(tree_mask(MASK_TYPES["fp32"], lengths, past, prompt, width, row, query, paths))
    assert seen.shape == (batch, prompt + width, past + prompt + width)
    assert seen.any(axis=2).all()
    for b in range(batch):
        for t in range(min(prompt, int(lengths[b]) - shared)):
            assert np.flatnonzero(seen[b, t]).tolist() == list(range(shared + t + 1))
    for i, b in enumerate(row):
        expected = set(range(lengths[b])) | set(paths[i][paths[i] >= 0].tolist())
        assert set(np.flatnonzero(seen[b, query[i]]).tolist()) == expected


@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(MASK_TYPES)))
@settings(max_examples=50, deadline=None)
def test_torch_makes_the_same_mask_on_its_device(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    batch, new, past, width = rng.integers(1, 4), rng.integers(1, 5), rng.integers(0, 4), rng.integers(0, 3)
    below = rng.integers(0, past + new + 1, (batch, new))
    slots = rng.integers(-1, past + new, (batch, new, width))
    dense = dense_mask(below, slots, int(past), MASK_TYPES[name])
    got = additive_mask(torch.from_numpy(below), torch.from_numpy(slots), int(past), DTYPES[name])
    bits = got.view(torch.uint16) if name == "bf16" else got
    np.testing.assert_array_equal(bits.numpy(), dense)
