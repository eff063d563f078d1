"""The public face over scripted engines: histories of item ids in, ranked items out."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from scripted_search import naive_beam_search
from specbeam.catalog.errors import HistoryError, OptionError
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptEncoder, PromptSpec
from specbeam.catalog.trie import ItemTrie
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import DraftShape, RecommendedItem, Recommender, Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.prefix import WORTH
from specbeam.runtime.types import Recommendation

HISTORY_LENGTH = 5
# Items in an order of their own; "twin" and "e" share an identifier with "b".
IDENTIFIERS = {
    "z": (1, 5), "b": (2, 5), "c": (2, 6), "twin": (2, 5), "a": (3, 6), "e": (2, 5), "f": (1, 6), "g": (1, 7),
}  # fmt: skip
CATALOG = Catalog(
    tuple(IDENTIFIERS),
    tuple(tuple(f"<{token}>" for token in tokens) for tokens in IDENTIFIERS.values()),
    tuple(None if item == "z" else f"Title of {item}" for item in IDENTIFIERS),
)
TRIE = ItemTrie.build(np.array(list(IDENTIFIERS.values())))
TARGET = ScriptedEngine(len(TRIE.vocabulary), seed=1)
DRAFT = ScriptedEngine(len(TRIE.vocabulary), seed=1, disagreement=0.4)


def make(
    draft: ScriptedEngine | None = DRAFT, *, context: int = 100, batch_size: int = 8, prefix: tuple[int, ...] = (90,),
    max_k: int | None = None, verification: Verification | None = None,
) -> Recommender:  # fmt: skip
    spec = PromptSpec(
        template="{history}", separator="", prefix_ids=prefix, separator_ids=(), suffix_ids=(),
        history_length=HISTORY_LENGTH,
    )  # fmt: skip
    prompts = PromptEncoder(spec, TRIE.item_tokens(), context)
    loaded = Loaded(CATALOG, TRIE, prompts, TARGET, draft, max_k=max_k)
    planning = FixedPlanning(None if draft is None else DraftShape(3, 2))
    return Recommender(loaded, planning=planning, batching=batch_size, verification=verification)


def expected(history: Sequence[str], k: int, prefix: tuple[int, ...] = (90,)) -> list[tuple[str, float]]:
    """By beam search over plain sequences, every leaf expanded to its items in catalog order, cut at k."""
    known = [IDENTIFIERS[item] for item in history if item in IDENTIFIERS][-HISTORY_LENGTH:]
    prompt = np.array([*prefix, *(token for tokens in known for token in tokens)])
    ranked: list[tuple[str, float]] = []
    for leaf, score in naive_beam_search(TRIE, TARGET, prompt, k):
        tokens = (int(TRIE.tokens(TRIE.parent[[leaf]])[0]), int(TRIE.tokens(np.array([leaf]))[0]))
        ranked += [(item, score) for item, own in IDENTIFIERS.items() if own == tokens]
    return ranked[:k]


def check(result: Recommendation, history: Sequence[str], k: int, prefix: tuple[int, ...] = (90,)) -> None:
    wanted = expected(history, k, prefix)
    assert [entry.item for entry in result.items] == [item for item, _ in wanted]
    np.testing.assert_allclose([entry.score for entry in result.items], [score for _, score in wanted], atol=1e-4)


def test_items_that_share_an_identifier_come_in_catalog_order_and_the_list_is_cut() -> None:
    recommender, history = make(), ["a", "c"]
    place = [item for item, _ in expected(history, 8)].index("b")
    assert place < 4  # the three lie within the list, and a list can be cut between them
    for k in range(1, 9):
        (result,) = recommender.recommend([history], k)
        check(result, history, k)
        assert len(result.items) == k
    names = [entry.item for entry in result.items]
    assert names[place : place + 3] == ["b", "twin", "e"]
    b, twin = result.items[place : place + 2]
    assert b == RecommendedItem("b", "Title of b", twin.score, ("<2>", "<5>"))
    assert next(entry for entry in result.items if entry.item == "z").title is None


@pytest.mark.parametrize("draft", [DRAFT, None])
def test_k_beyond_the_catalog_is_all_of_it(draft: ScriptedEngine | None) -> None:
    (result,) = make(draft).recommend([["g"]], 1000)
    check(result, ["g"], 1000)
    assert sorted(entry.item for entry in result.items) == sorted(IDENTIFIERS)


def test_unknown_items_are_dropped_and_counted() -> None:
    recommender = make()
    with_unknown, without = recommender.recommend([["?", "a", "nothing", "c", "?"], ["a", "c"]], 4)
    assert (with_unknown.unknown_items, without.unknown_items) == (3, 0)
    assert with_unknown.items == without.items
    check(with_unknown, ["a", "c"], 4)
    # unknown items take none of the history's places
    (late,) = recommender.recommend([["g", "a", "b", "c", "?", "a", "?", "z"]], 4)
    check(late, ["a", "b", "c", "a", "z"], 4)


def test_histories_that_cannot_be_used() -> None:
    recommender = make()
    with pytest.raises(HistoryError, match=r"none of its 4 items is in the catalog \(e\.g\. '1', '2', '3'\)"):
        recommender.recommend([["a"], ["1", "2", "3", "4"]], 4)
    with pytest.raises(HistoryError, match="it is empty"):
        recommender.recommend([[]], 4)
    assert recommender.stats.requests == 0
    assert recommender.recommend([], 4) == []


def test_arguments_that_look_right_are_refused() -> None:
    recommender = make()
    with pytest.raises(OptionError, match=r"history 1 \(from 0\) is '10', expected a list of item ids: put it into"):
        recommender.recommend([[CATALOG.item_ids[0]], "10"], 2)
    with pytest.raises(ValueError, match="a batch's size is 0"):
        make(batch_size=0)


def test_k_must_be_positive() -> None:
    recommender = make()
    with pytest.raises(ValueError, match="k is 0, expected a whole number, at least 1"):
        recommender.recommend([["a"]], 0)
    with pytest.raises(OptionError, match="k is -1, expected a whole number, at least 1"):
        recommender.encode(["a"], k=-1)


def test_every_request_may_ask_for_its_own_number() -> None:
    recommender = make(batch_size=3)
    histories = [["a", "c"], ["b"], ["a", "c"], ["g", "z"], ["f"]]
    asked = [1, 3, 20, None, 8]
    requests = [recommender.encode(history, k=k) for history, k in zip(histories, asked, strict=True)]
    results = recommender.run(requests, 2)
    for history, k, result in zip(histories, asked, results, strict=True):
        check(result, history, k or 2)
        assert result.available == (8 if k == 20 else None)  # there are eight items in all
    (result,) = recommender.recommend([["a"]], 8)
    assert (len(result.items), result.available) == (8, None)


def test_longer_lists_than_the_bundle_serves_are_refused() -> None:
    recommender = make(max_k=5)
    message = (
        "k is 6, but this bundle serves lists of at most 5 items. Ask for fewer, or export it again with --max-top-k 6"
    )
    request = recommender.encode(["a"], k=5)
    for ask in (
        lambda: recommender.encode(["a"], k=6), lambda: recommender.recommend([["a"]], 6),
        lambda: recommender.run([request], 6), lambda: recommender.run([], 6), lambda: recommender.trace(request, 6),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=message):
            ask()
    assert recommender.stats.requests == 0
    (result,) = recommender.run([request], 1)
    check(result, ["a"], 5)


def test_what_a_user_draws_depends_on_the_name_and_the_seed_only() -> None:
    recommender = make(verification=Verification("sampled", seed=4), batch_size=3)
    histories = [["a", "c"]] * 7
    names = [f"u{i}" for i in range(7)]

    def drawn(given: Recommender, users: list[str] | None) -> list[tuple[str, ...]]:
        return [tuple(e.item for e in result.items) for result in given.recommend(histories, 4, users=users)]

    lists = drawn(recommender, names)
    assert len(set(lists)) > 3
    assert drawn(recommender, names[::-1]) == lists[::-1]
    assert drawn(make(verification=Verification("sampled", seed=4), batch_size=8), names) == lists
    assert drawn(make(verification=Verification("sampled", seed=5)), names) != lists
    assert len(set(drawn(recommender, None))) == 1  # no name: the history itself
    with pytest.raises(OptionError, match="got 2 users for 7 histories; expected as many"):
        drawn(recommender, names[:2])


def test_only_what_the_context_cuts_counts_as_shortened() -> None:
    history = ["a", "b", "c", "f", "g", "z", "a"]
    (whole,) = make().recommend([history], 3)
    assert not whole.shortened  # seven items, of which the bundle takes five
    short = make(context=1 + 2 * 2)  # room for <bos> and two items
    cut, fitting = short.recommend([history, ["z", "a"]], 3)
    assert (cut.shortened, fitting.shortened) == (True, False)
    assert cut.items == fitting.items


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_the_order_is_kept_whatever_the_lengths_and_batches(batch_size: int) -> None:
    rng = np.random.default_rng(batch_size)
    histories = [rng.choice(list(IDENTIFIERS), rng.integers(1, 9)).tolist() for _ in range(13)]
    recommender, done = make(batch_size=batch_size), []
    requests = [recommender.encode(history) for history in histories]
    lengths = [len(request.prompt) for request in requests]
    assert lengths != sorted(lengths)
    results = recommender.run(requests, 4, progress=done.append)
    for history, result in zip(histories, results, strict=True):
        check(result, history, 4)
    assert done == [*range(batch_size, 13, batch_size), 13]


def test_a_long_beginning_that_all_prompts_share_changes_nothing() -> None:
    prefix = tuple(range(40, 40 + 2 * WORTH))
    recommender = make(batch_size=3, prefix=prefix)
    histories = [["a"], ["b", "c"], ["g", "z", "a"], ["c", "f"], ["e"] * 9]
    for _ in range(2):  # what was computed once is still there
        for history, result in zip(histories, recommender.recommend(histories, 5), strict=True):
            check(result, history, 5, prefix)


def test_the_same_user_twice_is_two_requests() -> None:
    first, second = make().recommend([["a", "c"], ["a", "c"]], 4)
    assert first == second


def test_stats_are_sums_over_calls() -> None:
    recommender, plain = make(batch_size=2), make(None)
    histories = [["a"], ["b", "c"], ["g", "z", "a"]]
    results = recommender.recommend(histories, 4) + recommender.recommend(histories[:1], 2)
    stats = recommender.stats
    assert stats.requests == 4
    assert stats.target_calls == sum(result.stats.target_calls for result in results)
    assert stats.draft_calls == sum(result.stats.draft_calls for result in results) > 0
    assert stats.nodes_evaluated == sum(result.stats.nodes_evaluated for result in results)
    assert all(1 <= result.stats.target_calls <= TRIE.length for result in results)
    assert stats.total_seconds > stats.target_seconds + stats.draft_seconds > 0
    assert stats.host_seconds == pytest.approx(stats.total_seconds - stats.target_seconds - stats.draft_seconds)
    (needed,) = stats.needed[1:].tolist()  # each request once: the 3 first codes, or fewer where k is 2
    assert needed == 3 * 3 + 2
    (rate,) = stats.acceptance()
    assert rate == stats.found[1] / needed
    slow = plain.recommend(histories, 4)
    assert [result.stats.target_calls for result in slow] == [TRIE.length] * 3
    assert [result.stats.draft_calls for result in slow] == [0] * 3
    assert plain.stats.acceptance() == [0]
    assert plain.stats.rejections == 9
    assert make().stats.acceptance() == [None]


class SlowEngine(ScriptedEngine):
    """Gives other threads their turn in the middle of a call."""

    def forward(self, inputs, cache):  # type: ignore[no-untyped-def]
        time.sleep(0.002)
        return super().forward(inputs, cache)


def test_threads_share_a_recommender() -> None:
    recommender = make(SlowEngine(len(TRIE.vocabulary), seed=1, disagreement=0.4), batch_size=2)
    histories = [["a"], ["b", "c"], ["g", "z", "a"], ["c", "f"]]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(recommender.recommend, histories[i % 4 :], 5) for i in range(12)]
        answers = [future.result() for future in futures]
    for i, results in enumerate(answers):
        for history, result in zip(histories[i % 4 :], results, strict=True):
            check(result, history, 5)
    assert recommender.stats.requests == 3 * (4 + 3 + 2 + 1)
    calls = sum(result.stats.target_calls for results in answers for result in results)
    assert recommender.stats.target_calls == calls


@pytest.mark.parametrize("k", ["5", 2.5, None])
def test_a_k_that_is_no_whole_number_is_refused(k: Any) -> None:
    with pytest.raises(OptionError, match="expected a whole number"):
        make().recommend([["a"]], k)


def test_settings_of_the_wrong_kind_are_refused() -> None:
    for wrong in ({"temperature": "1"}, {"seed": "a"}, {"seed": 1.5}):
        with pytest.raises(OptionError, match="number"):
            Verification("sampled", **wrong)  # type: ignore[arg-type]
    for shape in ((0, 1), (2.5, 1), (3, 0)):
        with pytest.raises(OptionError, match="a whole number, 1 to"):
            DraftShape(*shape)  # type: ignore[arg-type]
    (named,), (numbered,) = (make().recommend([["a"]], 3, users=[user]) for user in ("5", 5))  # type: ignore[list-item]
    assert named == numbered
