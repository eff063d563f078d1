"""The graph of `constrained` scoring: who opens it, that lists stay the same, and that a wrong one is not built."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import bad, good
from specbeam.catalog.errors import EngineError, OptionError
from specbeam.engines import build
from specbeam.engines.base import Engine
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.facts import CONSTRAINED
from specbeam.engines.bundle.inspect import describe
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.latency import call, random_tokens
from specbeam.engines.onnxruntime import backend
from specbeam.engines.registry import load_engine
from specbeam.evaluate.bench import Bench
from specbeam.evaluate.settings import Settings
from specbeam.runtime import Drafting, DraftShape, Recommender, Verification
from specbeam.runtime.chosen import Chosen
from tiny_bundle import ENGINE, Tiny, edit_manifest, seal_engine

ROLES = ("target", "draft")
WAYS = {
    "plain": (Drafting("none"), Verification(scoring="constrained")),
    "drafted": (Drafting(shape=DraftShape(6, 2)), Verification(scoring="constrained")),
    "sampled": (Drafting(shape=DraftShape(6, 2)), Verification("sampled", seed=3)),
}


def without(bundle: Path) -> Path:
    """As engines were built before there were such graphs."""
    folder = bundle / "engines" / ENGINE
    for role in ROLES:
        (folder / role / CONSTRAINED).unlink()
    seal_engine(folder)
    return bundle


@pytest.fixture(scope="module")
def former(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with an engine of before."""
    return without(shutil.copytree(tiny.bundle, tmp_path_factory.mktemp("former") / "bundle"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Role and name of every engine's graph that is opened."""
    seen: list[str] = []
    load = backend.load_ort_engine

    def told(graph: Path, *args: Any, **kwargs: Any) -> Engine:
        seen.append(f"{graph.parent.name}/{graph.name}")
        return load(graph, *args, **kwargs)

    monkeypatch.setattr(backend, "load_ort_engine", told)
    return seen


@pytest.fixture(scope="module")
def sides(tiny: Tiny, former: Path) -> dict[str, list[Recommender]]:
    """With the graph and without, by the way that they search."""
    return {
        way: [
            Recommender.open(bundle, drafting=drafting, verification=verification) for bundle in (tiny.bundle, former)
        ]
        for way, (drafting, verification) in WAYS.items()
    }


@pytest.mark.parametrize("way", list(WAYS))
@given(
    histories=st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=9), min_size=1, max_size=9),
    k=st.sampled_from([1, 4, 12, 40]),
)
def test_lists_are_the_same(
    sides: dict[str, list[Recommender]], way: str, histories: list[list[int]], k: int
) -> None:  # fmt: skip
    """Random weights leave neighbours far apart; a tie is broken by tokens, in both alike."""
    users = [str(number) for number in range(len(histories))]
    one, other = (side.recommend(histories, k, users=users, exclude_history=True) for side in sides[way])
    for a, b in zip(one, other, strict=True):
        assert [item.item for item in a.items] == [item.item for item in b.items]
        assert [item.score for item in a.items] == pytest.approx([item.score for item in b.items], abs=1e-4)


@pytest.mark.parametrize(
    ("verification", "name"),
    [
        ("strict", "model.onnx"), (Verification(scoring="constrained"), CONSTRAINED), ("sampled", CONSTRAINED),
        (Verification("tolerant", "constrained", slack=0.1), CONSTRAINED),
    ],
)  # fmt: skip
def test_what_is_opened(tiny: Tiny, opened: list[str], verification: Any, name: str) -> None:
    Recommender.open(tiny.bundle, verification=verification)
    assert opened == [f"{role}/{name}" for role in ROLES]


def test_the_bundle_s_own_scoring_counts(bundle: Path, opened: list[str]) -> None:
    edit_manifest(bundle, scoring="constrained")
    Recommender.open(bundle, drafting="none")
    assert opened == [f"target/{CONSTRAINED}"]


def test_an_engine_of_before_serves_with_its_whole_head(former: Path, opened: list[str]) -> None:
    Recommender.open(former, verification=Verification(scoring="constrained"))
    assert opened == ["target/model.onnx", "draft/model.onnx"]


def test_a_file_that_the_engine_does_not_name_is_not_opened(bundle: Path, tiny: Tiny, opened: list[str]) -> None:
    without(bundle)
    shutil.copy(tiny.bundle / "engines" / ENGINE / "draft" / CONSTRAINED, bundle / "engines" / ENGINE / "target")
    Recommender.open(bundle, verification="sampled")
    assert opened == ["target/model.onnx", "draft/model.onnx"]


def test_a_damaged_one_is_refused(bundle: Path, histories: Path, output: Path) -> None:
    graph = bundle / "engines" / ENGINE / "target" / CONSTRAINED
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    assert "constrained.onnx is damaged" in bad("infer", bundle, histories, "--output", output)
    good("build-engine", bundle, "--overwrite", "--threads", 1)
    good("infer", bundle, histories, "--output", output, "--verify", "sampled")


def test_full_scoring_is_refused_where_engines_are_for_constrained(tiny: Tiny) -> None:
    chosen = Chosen.of(tiny.bundle, verification=Verification(scoring="constrained"))
    loaded = chosen.loaded()
    with pytest.raises(OptionError, match=r"loaded for constrained scoring.*Load them for full scoring"):
        Recommender(loaded, planning=chosen.planning, verification="strict")
    assert Recommender(replace(loaded, scoring="full"), planning=chosen.planning).scoring == "full"


@pytest.mark.parametrize(("verify", "scoring"), [(("strict", "sampled"), "full"), (("sampled",), "constrained")])
def test_an_evaluation_loads_what_serves_all_its_searches(tiny: Tiny, verify: Any, scoring: str) -> None:
    settings = Settings(top_k=(5,), verify=verify, against=(), timed_users=0)
    assert Bench.open(Bundle.open(tiny.bundle), settings).loaded.scoring == scoring


@pytest.mark.parametrize(("scoring", "sums_to_one"), [("full", False), ("constrained", True)])
def test_the_graph_that_serves_by_default_is_timed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, scoring: str, sums_to_one: bool
) -> None:
    edit_manifest(bundle, scoring=scoring)
    sums, measure = list[bool](), build.measure_latency

    def told(engine: Engine, facts: Any, *more: Any) -> Any:
        cache = engine.new_cache(1)
        logprobs = engine.forward(call(random_tokens(facts, 0, 5, 1), 0, cache), cache)
        sums.append(bool(np.allclose(np.exp(logprobs.astype(np.float64)).sum(axis=-1), 1, atol=1e-5)))
        return measure(engine, facts, *more)

    monkeypatch.setattr(build, "measure_latency", told)
    build_engine(bundle, threads=1, overwrite=True)
    assert sums == [sums_to_one] * 2


def test_one_that_differs_is_not_built(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one over the whole vocabulary."""
    shutil.rmtree(bundle / "engines")
    monkeypatch.setattr(backend, "narrow_head", lambda graph: shutil.copy(
        graph.folder / "model.onnx", graph.folder / CONSTRAINED
    ))  # fmt: skip
    with pytest.raises(EngineError, match=r"target, built in fp32, differs from .* by .* in a log-probability"):
        build_engine(bundle, threads=1)
    assert not list((bundle / "engines").glob("onnxruntime*"))


def test_none_is_built_where_it_leaves_little_out(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MOST_COLUMNS", 0.3)
    build_engine(bundle, threads=1, overwrite=True)
    facts = Bundle.open(bundle).engine_facts(ENGINE)
    assert not any(facts.has_catalog_head(role) for role in facts.roles)
    assert load_engine(Bundle.open(bundle), "draft", ENGINE, threads=1, scoring="constrained").columns == 18


def test_inspect_says_who_has_it(tiny: Tiny, former: Path) -> None:
    told = "the head has the catalog's columns alone (target, draft)"
    assert told in describe(tiny.bundle)
    assert told not in describe(former)
