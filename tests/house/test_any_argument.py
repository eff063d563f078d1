"""Anything at all as an argument: an answer, or one of our errors."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from misuse_cases import GROUPS, IDS, REQUEST, R, recommender
from specbeam.align.align import AlignOptions
from specbeam.align.drafts import TargetLayers
from specbeam.align.objectives import OBJECTIVES, find_objective
from specbeam.align.synthetic import ShopSize
from specbeam.align.training.budget import TrainingBudget
from specbeam.align.training.configs import ModelSize, T5Size, find_config
from specbeam.align.training.samples import PromptOptions
from specbeam.align.training.sources import FreshModel, LoraModel, Pretrained
from specbeam.calib.options import Int8Options
from specbeam.catalog import checks
from specbeam.catalog.errors import HistoryError, OptionError, SpecBeamError
from specbeam.catalog.histories.dataset import Dataset
from specbeam.catalog.prompts.encoder import PromptSpec
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.bundle.open import open_bundle
from specbeam.engines.bundle.texts import TextBundle
from specbeam.engines.registry import find_backend
from specbeam.engines.tensorrt.backend import CallSizes
from specbeam.engines.tensorrt.build import TrtOptions
from specbeam.evaluate import Settings
from specbeam.evaluate.explain import explain
from specbeam.export import export_bundle
from specbeam.export.local import local
from specbeam.export.text import export_text
from specbeam.pools.groups.users import group_users
from specbeam.pools.items.pool import ItemPool
from specbeam.pools.texts.live import LivePool
from specbeam.pools.texts.pool import TextPool
from specbeam.runtime import Batching, Drafting, DraftShape, EngineChoice, ItemFilter, Recommender, Verification
from specbeam.serve import AsyncRecommender, Serving
from specbeam.serve.arrays import array_requests
from specbeam.serve.editions import Edition
from specbeam.text import TextDrafting, TextVerification
from tiny_bundle import Tiny


def generators() -> Iterator[int]:
    yield 3
    yield 7


LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.sampled_from([-(10**30), -1, 0, 1, 3, 10**6, 2**63, 10**30]),
    st.floats(), st.text(max_size=5), st.binary(max_size=3), st.sampled_from([*IDS, "strict", "sampled", "auto"]),
    st.sampled_from([np.int64(3), np.float32(1.5), np.bool_(True), np.str_("3"), 1j, Path("x"), Ellipsis, len]),
    st.builds(object), st.builds(generators), st.just(ItemFilter), st.builds(ItemFilter),
    st.builds(DraftShape), st.builds(Verification), st.builds(TextDrafting), st.just(REQUEST),
    st.sampled_from([np.array(3), np.array([3, 7]), np.array([["3"], ["7"]]), np.array([]), np.array([1.5])]),
)  # fmt: skip


JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(st.text(max_size=2), inner)
    ),
    max_leaves=5,
)


anything = given(junk=JUNK, which=st.integers(0, 10**6))


def survives(call: Callable[[], object]) -> None:
    """Either it is done, or it is refused in our words."""
    with suppress(SpecBeamError):
        call()


def asked(history: Any, **options: Any) -> None:
    """A request that joins the queue of a worker that ends at once."""
    with AsyncRecommender(Edition("model", "1", "1", R)) as serving:
        serving.submit(history, **options).cancel()


ASKED: list[Callable[[Any], object]] = [
    lambda x: R.recommend(x, 3), lambda x: R.recommend([x], 3), lambda x: R.recommend([["3"]], x),
    lambda x: R.recommend([["3"]], 3, users=x), lambda x: R.recommend([["3"]], 3, users=[x]),
    lambda x: R.recommend([["3"]], 3, item_filter=x), lambda x: R.recommend([["3"]], 3, exclude_history=x),
    lambda x: R.encode(x), lambda x: R.encode([x]), lambda x: R.encode(["3"], k=x), lambda x: R.encode(["3"], user=x),
    lambda x: R.encode(["3"], item_filter=x), lambda x: R.encode(["3"], exclude_history=x),
    lambda x: R.run(x, 3), lambda x: R.run([x], 3), lambda x: R.run([REQUEST], x),
    lambda x: R.trace(x, 3), lambda x: R.trace(REQUEST, x), lambda x: ItemFilter(allow=x), lambda x: ItemFilter(deny=x),
    lambda x: ItemFilter(allow=[x]), lambda x: explain(R, x, 2), lambda x: explain(R, ["3"], x),
    lambda x: explain(x, []),
    lambda x: recommender(batch_size=x), lambda x: recommender(verification=x),
    lambda x: recommender(max_k=x), lambda x: recommender(reuse=x),
    lambda x: Bundle.open(x), lambda x: TextBundle.open(x), lambda x: open_bundle(x), lambda x: ItemPool.open(x),
    lambda x: TextPool.open(x), lambda x: Dataset.open(x), lambda x: LivePool(x), lambda x: LivePool(reach=x),
    lambda x: find_backend(x), lambda x: find_backend("onnxruntime", x), lambda x: find_objective(x),
    lambda x: build_engine(x), lambda x: FreshModel(x), lambda x: Pretrained(x), lambda x: LoraModel("x", x),
    lambda x: group_users([], x), lambda x: group_users([], groups=x), lambda x: group_users([], dimension=x),
    lambda x: export_bundle(x, None, x, None, Path("x")), lambda x: export_text(x, Path("x")),
    lambda x: ItemTrie.build(x), lambda x: find_config(x, 5), lambda x: local(x, "target"),
    lambda x: LoraModel(x, 3), lambda x: TargetLayers(x, 1), lambda x: FreshModel("1x32", x),
    lambda x: asked(x), lambda x: asked([x]), lambda x: asked(["3"], k=x), lambda x: asked(["3"], user=x),
    lambda x: asked(["3"], item_filter=x), lambda x: asked(["3"], exclude_history=x),
    lambda x: asked(["3"], verification=x), lambda x: asked(["3"], timeout=x), lambda x: asked(["3"], priority=x),
    lambda x: array_requests(R, x, [1], 3), lambda x: array_requests(R, [[3, 4]], x, 3),
]  # fmt: skip


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@anything
def test_anything_in_any_argument_is_answered_or_refused(junk: Any, which: int) -> None:
    survives(partial(ASKED[which % len(ASKED)], junk))


CONFIGURATIONS: list[tuple[type, dict[str, Any]]] = [
    (Verification, {"mode": "sampled"}), (Verification, {}), (TextVerification, {}), (DraftShape, {}),
    (TextDrafting, {}), (Drafting, {}), (EngineChoice, {}), (Batching, {}), (Serving, {}),
    (Settings, {}), (Int8Options, {}), (TrainingBudget, {"learning_rate": 0.1, "steps": 3}), (AlignOptions, {}),
    (PromptOptions, {}), (ShopSize, {}), (ModelSize, {"layers": 1, "hidden": 32, "heads": 1, "intermediate": 32}),
    (T5Size, {"layers": 1, "hidden": 32, "heads": 1, "head_dim": 32, "intermediate": 64}),
    (CallSizes, {}), (TrtOptions, {}),
    (PromptSpec, {"template": "", "separator": "", "prefix_ids": (), "separator_ids": (), "suffix_ids": (),
                  "history_length": 5}),
    *((objective, {}) for objective in OBJECTIVES.values()),
]  # fmt: skip


@settings(max_examples=800, deadline=None)
@given(junk=JUNK, chosen=st.sampled_from(CONFIGURATIONS), data=st.data())
def test_anything_in_any_configuration_is_kept_as_it_should_be_or_refused(
    junk: Any, chosen: tuple[type, dict[str, Any]], data: st.DataObject
) -> None:
    kind, others = chosen
    name = data.draw(st.sampled_from(sorted(checks._kinds(kind))))
    try:
        made = kind(**{**others, name: junk})
    except OptionError:
        return
    assert kind(**{**others, name: getattr(made, name)}) == made
    assert not isinstance(getattr(made, name), np.generic | np.ndarray | list)
    assert (getattr(made, name) is True) == (isinstance(junk, bool | np.bool_) and bool(junk))


@pytest.mark.parametrize("kind", [kind for kind, _ in CONFIGURATIONS])
def test_a_name_that_a_configuration_does_not_have_is_refused(kind: type) -> None:
    with pytest.raises(TypeError, match="nonsense"):
        kind(nonsense=1)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=JUNK,
    name=st.sampled_from(
        [
            "engine", "engine.name", "engine.device", "engine.threads", "drafting", "drafting.drafter",
            "drafting.pool", "drafting.speculation", "drafting.shape", "drafting.reuse", "verification", "batching",
        ]
    ),
)  # fmt: skip
def test_anything_in_any_setting_of_a_recommender_is_taken_or_refused(tiny: Tiny, junk: Any, name: str) -> None:
    def choose() -> None:
        group, _, field = name.partition(".")
        value = GROUPS[group](**{field: junk}) if field else junk
        Recommender.open(tiny.bundle, **{"engine": EngineChoice(threads=1), group: value})

    survives(choose)


def test_histories_that_hold_nothing_known_are_told_of_as_before() -> None:
    with pytest.raises(HistoryError, match=r"Of 2 histories, number 1 \(from 0\): .*none of its 2 items is in the cat"):
        R.recommend([["3"], [99, "x"]])
    with pytest.raises(HistoryError, match="it is empty"):
        R.recommend([iter(())])
