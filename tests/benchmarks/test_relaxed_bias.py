"""The benchmark of relaxed verification's bias: its truths are true, and it runs."""

from itertools import permutations
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.quality.relaxed_bias import chance, distance, inclusion_without_replacement, main, probabilities, worlds


def test_inclusion_is_that_of_the_enumerated_draws() -> None:
    p = np.array([0.5, 0.3, 0.1, 0.06, 0.039999, 1e-6])
    inclusion = inclusion_without_replacement(p, 4)
    for k in range(1, 5):
        expected = np.zeros(len(p))
        for order in permutations(range(len(p)), k):
            left, probability = 1.0, 1.0
            for i in order:
                probability *= p[i] / left
                left -= p[i]
            expected[list(order)] += probability
        np.testing.assert_allclose(inclusion[k - 1], expected, atol=1e-6)
    many = np.random.default_rng(0).dirichlet(np.full(300, 0.2))
    np.testing.assert_allclose(inclusion_without_replacement(many, 20).sum(axis=1), np.arange(1, 21), rtol=1e-4)


def test_distances() -> None:
    a, b = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.5, 0.5])
    assert distance(a, b) == 0.5
    assert distance(a, 3 * a) == 0
    rng, inclusion, users = np.random.default_rng(0), np.full(50, 0.3), 2000
    found = np.mean([distance(rng.binomial(users, inclusion) / users, inclusion) for _ in range(50)])
    assert chance(inclusion, users) == pytest.approx(found, rel=0.05)


def test_every_leaf_has_its_probability() -> None:
    (world,) = worlds(1, 2.0)
    p = probabilities(world, world.target)
    assert (p > 0).tolist() == (world.trie.child_count == 0).tolist()
    assert p.sum() == pytest.approx(1, abs=1e-5)


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "bias.json"
    options = "--draws 400 --worlds 1 --top-k 1 4 --disagreements 0.5"
    monkeypatch.setattr("sys.argv", ["relaxed_bias.py", *options.split(), "--output", str(output)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| ") for line in lines) == 3 * (1 + 2)
    results = msgspec.json.decode(output.read_bytes())["results"]
    assert [result["k"] for result in results] == [1, 4]
    for result in results:
        for name in ("calls", "sampled calls"):
            assert np.array(result[name]).shape == (1, 3)
            assert all(1 <= calls <= 3 for calls in result[name][0])
