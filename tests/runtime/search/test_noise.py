"""The noise of sampling: uniform, independent, a function of seed, user and tokens; and what perturbs by it."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chi_square import misfit, quantile
from scripted_search import ragged_catalog, random_catalog
from specbeam.catalog.hashing import uniform
from specbeam.catalog.trie import ItemTrie
from specbeam.runtime.search import noise as noise_module
from specbeam.runtime.search.noise import STREAMS, Noise, perturbed, prefix_hashes


def test_the_quantile_is_the_tables() -> None:
    for freedom, tabled in ((10, 29.588), (50, 86.661), (100, 149.449)):
        assert quantile(freedom) == pytest.approx(tabled, rel=1e-2)


def families(draw: st.DrawFn) -> Iterator[tuple[float, list[float]]]:
    """Parents' perturbed scores, and their children's log-probabilities less the parent's."""
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["usual", "extreme", "level"]))
        count = draw(st.integers(1, 6))
        if kind == "usual":
            raw = draw(st.lists(st.floats(-20, 0), min_size=count, max_size=count))
        elif kind == "extreme":
            raw = draw(st.lists(st.sampled_from([0.0, -1e-12, -1.0, -700.0, -1e4]), min_size=count, max_size=count))
        else:
            raw = [i * 1e-12 for i in range(count)]
        yield draw(st.one_of(st.floats(-1e4, 50), st.floats(30, 50))), raw


@given(data=st.data(), seed=st.integers(0, 10**6), noisy=st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_best_child_scores_what_its_parent_scores_and_none_more(
    data: st.DataObject, seed: int, noisy: bool
) -> None:
    made = data.draw(st.composite(lambda draw: list(families(draw)))())
    parent = np.array([score for score, _ in made])
    which = np.repeat(np.arange(len(made)), [len(raw) for _, raw in made])
    logprob = np.array([x for _, raw in made for x in raw])
    noise = np.random.default_rng(seed).gumbel(size=len(which)) * noisy
    result = perturbed(parent, which, logprob, noise)
    assert np.isfinite(result).all()
    assert (result <= parent[which]).all()
    for number, (score, raw) in enumerate(made):
        mine = which == number
        assert result[mine].max() == score
        if len(raw) == 1:
            assert result[mine].tolist() == [score]
        np.testing.assert_allclose(result[mine], by_sixty_digits(score, (logprob + noise)[mine]), rtol=1e-12, atol=1e-9)


def by_sixty_digits(parent: float, raw: np.ndarray) -> list[float]:
    """-log(exp(-parent) - exp(-max(raw)) + exp(-raw)): children's values given that their largest is the parent's."""
    with localcontext(prec=60):
        exact = [(-Decimal(x)).exp() for x in raw.tolist()]
        return [float(-((-Decimal(parent)).exp() + (x - min(exact))).ln()) for x in exact]


def test_children_of_nobody_are_no_children() -> None:
    nothing = np.empty(0)
    assert perturbed(np.array([1.0]), nothing.astype(np.int64), nothing, nothing).tolist() == []


def test_perturbed_children_of_a_gumbel_parent_are_independent_gumbels() -> None:
    # the definition that the top-down construction must reproduce (Kool et al. 2019, section 3)
    p, draws = np.array([0.6, 0.3, 0.1]), 40_000
    rng = np.random.default_rng(3)
    which = np.repeat(np.arange(draws), 3)
    result = perturbed(rng.gumbel(size=draws), which, np.log(np.tile(p, draws)), rng.gumbel(size=3 * draws))
    inner = np.exp(-np.exp(-(result.reshape(draws, 3) - np.log(p))))  # uniform, if each is Gumbel(log p)
    for i in range(3):
        assert misfit(*cells(inner[:, i])) < 1
        assert misfit(*cells(inner[:, i], inner[:, i - 1])) < 1


def cells(*coordinates: np.ndarray, sides: int = 8) -> tuple[Counter[tuple[int, ...]], dict[tuple[int, ...], float]]:
    """Points of a unit cube counted by cell, and the uniform distribution over the cells."""
    points = np.stack([(x * sides).astype(int) for x in coordinates], axis=1)
    shape = (sides,) * len(coordinates)
    return Counter(map(tuple, points.tolist())), dict.fromkeys(np.ndindex(shape), 1 / sides ** len(coordinates))


def noises() -> tuple[Noise, np.ndarray, np.ndarray]:
    """Noise of 100 users, and (user, node) for each of them and 250 nodes of one trie."""
    trie = ItemTrie.build(random_catalog(np.random.default_rng(0), 2000, 3, 20))
    request, node = np.divmod(np.arange(25_000), 250)
    return Noise(1, np.arange(100).astype(np.uint64), prefix_hashes(trie)), request, node


def test_noise_is_uniform_and_its_streams_users_and_nodes_are_independent() -> None:
    noise, request, node = noises()
    base = noise.uniform(request, node, 0)
    assert misfit(*cells(base, sides=100)) < 1
    others = [noise.uniform(request, node, 1), noise.uniform(request, node, 1 + STREAMS)]
    others += [noise.uniform((request + 1) % 100, node, 0), noise.uniform(request, node + 1, 0)]
    for other in others:
        assert misfit(*cells(base, other)) < 1
        assert abs(np.corrcoef(base, other)[0, 1]) < 4 / len(base) ** 0.5
    assert len(np.unique(np.concatenate([base, *others[:2]]))) == 3 * len(base)
    gumbel = noise.gumbel(request, node, 0)
    assert misfit(*cells(np.exp(-np.exp(-gumbel)), sides=50)) < 1


def test_noise_takes_a_stream_for_each_node_and_any_seed() -> None:
    noise, request, node = noises()
    stream = np.arange(len(node)) % 3
    mixed = noise.uniform(request, node, stream)
    for one in range(3):
        here = stream == one
        assert mixed[here].tolist() == noise.uniform(request[here], node[here], one).tolist()
    hashes = np.array([1, 2], np.uint64)
    here = np.zeros(1, np.int64)
    values = {
        float(Noise(seed, np.zeros(1, np.uint64), hashes).uniform(here, here, 0)[0])
        for seed in (0, 1, -1, 2**63, 2**64 - 2, 2**70 + 5)
    }
    assert len(values) == 6


def test_prefix_hashes_name_the_tokens_and_not_the_trie() -> None:
    small = ItemTrie.build(np.array([[1, 2, 3], [2, 1, 3]]))
    large = ItemTrie.build(np.array([[0, 0, 0], [1, 0, 9], [1, 2, 3], [1, 2, 4], [2, 1, 3], [2, 2, 2]]))
    of_small, of_large = (dict(zip(paths(trie), hashes(trie).tolist(), strict=True)) for trie in (small, large))
    assert {path: of_large[path] for path in of_small} == of_small
    assert of_small[(1, 2)] != of_small[(2, 1)]
    big = ItemTrie.build(random_catalog(np.random.default_rng(0), 20_000, 4, 30))
    assert len(np.unique(hashes(big))) == len(big.parent)


def test_prefix_hashes_of_a_large_trie_are_those_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    trie = ItemTrie.build(ragged_catalog(np.random.default_rng(1), 300, 4, 5))
    nodes = np.random.default_rng(2).integers(0, len(trie.parent), (7, 11))
    expected = prefix_hashes(trie)[nodes]
    monkeypatch.setattr(noise_module, "ALL_AT_ONCE", 0)
    assert prefix_hashes(trie)[nodes].tolist() == expected.tolist()


def hashes(trie: ItemTrie) -> np.ndarray:
    return prefix_hashes(trie)[np.arange(len(trie.parent))]


def paths(trie: ItemTrie) -> list[tuple[int, ...]]:
    result: list[tuple[int, ...]] = [()]
    for node in range(1, len(trie.parent)):
        result.append((*result[int(trie.parent[node])], int(trie.vocabulary[trie.column[node]])))
    return result


def test_uniform_numbers_exclude_0_and_1() -> None:
    ends = uniform(np.array([0, 2**64 - 1], np.uint64))
    assert (ends > 0).all()
    assert (ends < 1).all()
