"""What callers get wrong is refused where it enters, in our words; what they may mean is taken as they mean it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from misuse_cases import GROUPS, IDS, ITEMS, REQUEST, R
from scripted_recommender import pairs
from specbeam.align.align import align
from specbeam.align.objectives import find_objective
from specbeam.align.training.configs import find_config
from specbeam.align.training.sources import FreshModel, LoraModel, Pretrained
from specbeam.align.training.train import train
from specbeam.calib.options import Int8Options
from specbeam.catalog.errors import CatalogError, OptionError, SpecBeamError
from specbeam.catalog.items import Catalog
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.build import build_engine
from specbeam.engines.registry import find_backend
from specbeam.evaluate import Settings, evaluate
from specbeam.evaluate.explain import explain
from specbeam.evaluate.tune import tune
from specbeam.export import export_bundle
from specbeam.export.text import export_text
from specbeam.pools.groups.users import group_users
from specbeam.pools.items.build import build_item_pool
from specbeam.pools.texts.build import build_text_pool
from specbeam.pools.texts.live import LivePool
from specbeam.runtime import Batching, Drafting, DraftShape, EngineChoice, ItemFilter, Recommender, Verification
from specbeam.text import TextGenerator
from tiny_bundle import Tiny


class Stubborn:
    """A value that cannot even be named."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


EXPECTED = pairs(R.recommend([["3", "7"]], 5)[0])


@pytest.mark.parametrize(
    "history",
    [["3", "7"], ("3", "7"), [3, 7], iter(["3", "7"]), (str(i) for i in (3, 7)), np.array(["3", "7"]), np.array([3, 7]),
     {"3": 0, "7": 1}.keys(), [np.int64(3), np.str_("7")], map(str, [3, 7]), np.array(["3", 7], object)],
    ids=lambda history: type(history).__name__,
)  # fmt: skip
def test_any_iterable_of_ids_is_a_history(history: Any) -> None:
    (result,) = R.recommend([history], 5)
    assert pairs(result) == EXPECTED
    assert result.unknown_items == 0


def test_several_histories_are_any_iterable() -> None:
    for histories in (([i, "7"] for i in (3, 3)), np.array([["3", "7"], ["3", "7"]]), {(3, 7): 1, ("3", 7): 2}.keys()):
        assert [pairs(result) for result in R.recommend(histories, 5)] == [EXPECTED, EXPECTED]
    requests = (R.encode(history) for history in [["3", "7"]])
    assert pairs(R.run(requests, 5)[0]) == EXPECTED
    assert pairs(R.recommend([["3", "7"]], np.int64(5), users=iter([5]))[0]) == EXPECTED
    assert explain(R, iter([3, "7"]), 5).history == (("3", None), ("7", None))


@pytest.mark.parametrize(
    "ids", [{8}, [8], ("8",), np.array([8]), iter([8]), frozenset({8}), {np.int32(8)}, range(8, 9)]
)
def test_numbers_as_ids_are_what_they_are_in_history_files(ids: Any) -> None:
    wanted = ItemFilter(deny=ids)
    assert wanted.deny == {"8"}
    (result,) = R.recommend([["3"]], ITEMS, item_filter=wanted)
    assert {item for item, _ in pairs(result)} == {*IDS} - {"8"}
    (only,) = R.recommend([["3"]], ITEMS, item_filter=ItemFilter(allow=[*wanted.deny, 2]))
    assert {item for item, _ in pairs(only)} == {"8", "2"}


def test_an_excluded_history_of_numbers_is_excluded() -> None:
    (result,) = R.recommend([[3, 7]], ITEMS, exclude_history=np.bool_(True))
    assert {item for item, _ in pairs(result)} == {*IDS} - {"3", "7"}


def test_a_users_draw_is_the_same_by_number_and_by_name() -> None:
    assert R.encode(["3"], user=5).key == R.encode(["3"], user="5").key == R.encode(["3"], user=np.int64(5)).key
    assert R.encode([3, 7]).key == R.encode(["3", "7"]).key


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: R.recommend([["3"]], item_filter={"allow": ["1"]}), r"item_filter is \{'allow': \['1'\]\}, exp"),
        (lambda: R.recommend([None]), r"history 0 \(from 0\) is None, expected a list of item ids"),
        (lambda: R.recommend(None), "histories is None, expected a list of histories"),
        (lambda: R.recommend(["11", "7"]), r"histories is \['11', '7'\], expected a list .* such as \[\['11', '7'\]\]"),
        (lambda: R.recommend([11, 7]), r"expected a list of histories, each a list of item ids: such as \[\[11, 7\]\]"),
        (lambda: R.recommend("11"), "histories is '11', expected a list of histories: put it into a list"),
        (lambda: R.recommend({"u1": ["3"]}), r"histories is \{'u1': \['3'\]\}, expected a list of histories"),
        (lambda: R.encode({"3": 1}), r"history is \{'3': 1\}, expected a list of item ids"),
        (lambda: R.encode({"3", "7"}), "expected item ids, oldest first: a set has no order"),
        (lambda: R.encode([3.0]), r"an item of history is 3\.0, expected an id: text, or a whole number"),
        (lambda: R.encode([True]), "an item of history is True, expected an id"),
        (lambda: R.encode([["3"]]), r"an item of history is \['3'\], expected an id"),
        (lambda: R.encode(b"3"), "history is b'3', expected a list of item ids"),
        (lambda: R.encode(["3"], user=1.5), r"user is 1\.5, expected an id"),
        (lambda: R.recommend([["3"]], True), "k is True, expected a whole number, at least 1"),
        (lambda: R.recommend([["3"]], exclude_history="no"), "exclude_history is 'no', expected True or False"),
        (lambda: R.recommend([["3"]], users="u"), "users is 'u', expected a list of users: put it into a list"),
        (lambda: R.run([["3"]]), r"a request is \['3'\], expected what encode\(history\) returns"),
        (lambda: R.run(REQUEST), "requests is .*, expected a list of requests"),
        (lambda: R.run([REQUEST], progress=3), "progress is 3, expected a function"),
        (lambda: R.trace(["3"]), "a request is"),
        (lambda: ItemFilter(allow=[1.5]), r"an item of allow is 1\.5, expected an id"),
        (lambda: ItemFilter(deny=[None]), "an item of deny is None, expected an id"),
        (lambda: ItemFilter(deny=None), "deny is None, expected a list of item ids"),
        (lambda: ItemFilter(allow=8), "allow is 8, expected a list of item ids"),
        (lambda: DraftShape("40"), "a draft's width is '40', expected a whole number, 1 to 1000000"),
        (lambda: Verification("strict ", scoring="full"), "mode is 'strict ', expected one of strict, tolerant"),
        (lambda: Verification("sampled", seed=True), "seed is True, expected a whole number or None"),
        (lambda: Batching(0), "a batch's size is 0, expected a whole number, at least 1"),
        (lambda: find_backend(["onnxruntime"]), "There is no backend"),
        (lambda: find_config(None, 5), "config is None, expected a name, a path, a ModelSize or a T5Size"),
        (lambda: find_objective(["sft"]), "objective is .*, expected one of atspeed-s"),
        (lambda: FreshModel("1x32") and Pretrained(3), "directory is 3, expected a path"),
        (lambda: LoraModel("x", "4"), "rank is '4', expected a whole number"),
        (lambda: LivePool("big"), "capacity is 'big', expected a whole number"),
        (lambda: group_users([], "kmeans"), "method is 'kmeans', expected one of svd, lightgcn, random"),
        (lambda: R.encode(["3"], user=Stubborn()), "user is <Stubborn instance at .*>, expected an id"),
        (lambda: R.encode([10**5000]), "expected a whole number"),
    ],
)  # fmt: skip
def test_misuse_is_refused_where_it_enters(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecBeamError, match=message) as caught:
        ask()
    assert len(str(caught.value)) < 400


def opened(bundle: Path, settings: dict[str, Any]) -> Recommender:
    """A recommender; groups of options are made of the mappings given."""
    made = {name: GROUPS[name](**value) if isinstance(value, dict) else value for name, value in settings.items()}
    return Recommender.open(bundle, **made)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drafting": {"shape": (40, 3)}}, r"shape is \(40, 3\), expected such as DraftShape\(40, 3\)"),
        ({"engine": {"threads": "2"}}, "threads is '2', expected a whole number, 1 to 1024"),
        ({"engine": {"threads": 10**6}}, "threads is 1000000, expected a whole number, 1 to 1024"),
        ({"engine": {"threads": 0}}, "threads is 0, expected a whole number, 1 to 1024"),
        ({"batching": 2.0}, r"a batch's size is 2\.0, expected a whole number, at least 1"),
        ({"engine": 3}, "engine is 3, expected a name, or such as EngineChoice"),
        ({"engine": {"name": 3}}, "an engine's name is 3, expected text"),
        ({"engine": {"device": "abacus"}}, "an engine's device is 'abacus', expected one of cpu, cuda"),
        ({"drafting": 3}, "drafting is 3, expected such as Drafting"),
        ({"drafting": "oracle"}, "drafter is 'oracle', expected one of model, retrieval, both, none"),
        ({"drafting": {"speculation": "auto", "shape": DraftShape()}}, "auto decides how much to draft"),
        ({"verification": 3}, r"verification is 3, expected such as Verification\('sampled'\)"),
        ({"engine": ""}, "has no engine ''"),
        ({"drafting": {"drafter": ["model"]}}, r"drafter is \['model'\], expected one of model, retrieval, both, none"),
        ({"drafting": {"speculation": True}}, "speculation is True, expected one of auto, fixed"),
        ({"verification": "greedy"}, "mode is 'greedy', expected one of strict, tolerant, relaxed, sampled"),
        ({"drafting": {"pool": 3}}, "pool is 3, expected a path"),
        ({"drafting": {"reuse": "yes"}}, "reuse is 'yes', expected True or False"),
    ],
)
def test_settings_of_a_recommender(tiny: Tiny, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecBeamError, match=message):
        opened(tiny.bundle, settings)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda b: tune(b, ["11", "7"]), "expected a list of histories"),
        (lambda b: tune(b, [["1"]], top_k=5), "top_k is 5, expected a list of whole numbers"),
        (lambda b: tune(b, [["1"]], top_k=[]), "top_k is empty"),
        (lambda b: tune(b, [["1"]], top_k=[201]), "at most 200 items"),
        (lambda b: tune(b, [["1"]], engine=EngineChoice(threads=2000)), "threads is 2000"),
        (lambda b: tune(b, [["1"]], verification=["strict"]), r"verification is \['strict'\]"),
        (lambda b: tune(b, [["1"]], drafting=Drafting(shape=DraftShape())), "what tuning is for"),
        (lambda b: build_engine(b, threads="2"), "threads is '2'"),
        (lambda b: build_engine(b, precision="fp64"), "precision is 'fp64', expected one of fp32, fp16, bf16, int8"),
        (lambda b: build_engine(b, backend="onnxruntime"), "backend is 'onnxruntime', expected such as find_backend"),
        (lambda b: build_engine(b, overwrite="no"), "overwrite is 'no', expected True or False"),
        (lambda b: evaluate(b, "beauty"), r"dataset is 'beauty', expected such as Dataset\.open"),
        (
            lambda b: TextGenerator.open(b, engine=EngineChoice(threads=0)),
            "threads is 0, expected a whole number, 1 to 1024",
        ),
        (lambda b: TextGenerator.open(b, verification="relaxed"), "verification is 'relaxed'"),
        (lambda b: TextGenerator.open(b, drafting=5), "drafting is 5, expected such as TextDrafting"),
        (lambda b: TextGenerator.open(b, live="no"), "live is 'no', expected True or False"),
        (lambda b: TextGenerator.open(b, stop="###"), "stop is '###', expected a list of strings: put it into a list"),
        (lambda b: train(b, FreshModel("1x32"), "out"), "dataset is .*, expected such as Dataset"),
        (lambda b: align(b, "t", FreshModel("1x32"), find_objective("sft"), "out"), "dataset is"),
        (lambda b: export_bundle(3, None, b, None, b), "target is 3, expected a path"),
        (lambda b: export_bundle(b, None, b, None, b, chat=1), "chat is 1, expected True or False"),
        (lambda b: export_bundle(b, None, b, None, b, scoring=["full"]), "scoring .* is unknown; choose one of full"),
        (lambda b: export_text(None, b), "target is None, expected a path"),
        (lambda b: build_item_pool([1], b / "pool"), "an entry is 1, expected what read_histories yields"),
        (lambda b: build_text_pool([1], b / "pool", tokenizer_sha256="", reach=4), "a text is 1, expected"),
    ],
)
def test_misuse_of_what_takes_a_bundle(bundle: Path, ask: Callable[[Path], object], message: str) -> None:
    before = sorted(bundle.rglob("*"))
    with pytest.raises(SpecBeamError, match=message):
        ask(bundle)
    assert sorted(bundle.rglob("*")) == before


def test_a_budget_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    from specbeam.align.training.budget import chosen_settings

    for budget, message in (
        ({"epoch": 3}, "budget holds 'epoch', expected any of: learning_rate, steps, epochs"),
        ({"seed": "x"}, "seed is 'x', expected a whole number"),
        ({"seed": -1}, "seed is -1"),
        ([("epochs", 3)], "budget is .*, expected a mapping of settings"),
    ):
        with pytest.raises(OptionError, match=message):
            chosen_settings(budget)  # type: ignore[arg-type]


def test_configurations_take_what_python_and_numpy_call_numbers() -> None:
    chosen = Settings(top_k=[np.int64(5), 1], users=np.int32(4), slack=None)  # type: ignore[arg-type]
    assert (chosen.top_k, type(chosen.users)) == ((5, 1), int)
    assert Verification("tolerant", slack=1) == Verification("tolerant", slack=np.float64(1.0))
    assert DraftShape(np.int64(4), 2) == DraftShape(4, 2)
    assert type(DraftShape(np.int64(4), 2).width) is int
    assert Int8Options(keep=["head"]).keep == ("head",)  # type: ignore[arg-type]


def test_a_catalog_and_a_trie_are_of_text_and_of_numbers() -> None:
    with pytest.raises(CatalogError, match="expected text, and tuples of text"):
        Catalog((1, 2), (("a",), ("b",)), (None, None))  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match="expected text, and tuples of text"):
        Catalog(("1",), ("a",), (None,))  # type: ignore[arg-type]
    for identifiers in ([[1, 2]], np.ones((2, 2)), None):
        with pytest.raises(CatalogError, match="an array"):
            ItemTrie.build(identifiers)  # type: ignore[arg-type]
