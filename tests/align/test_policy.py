"""The draft while it learns: what is counted is what the runtime's first round finds, and its own trees are its own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from specbeam.align.policy import AcceptanceCheck, Policy
from specbeam.align.teaching.batch import TreeBatch
from specbeam.align.teaching.lessons import Lessons, Places, batch_of
from specbeam.align.teaching.searcher import Searcher, truth_paths
from specbeam.align.teaching.store import fill, open_store
from specbeam.align.teaching.student import child_logprobs
from specbeam.align.training.samples import Format, PromptOptions
from specbeam.catalog.items import Catalog
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.engines.torch import TorchEngine
from specbeam.runtime import DraftShape, Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.types import Int64
from tiny_models import identifier_tokens, make_model, make_tokenizer, tiny_catalog

K = 5
TOKENS = identifier_tokens(levels=4, codes=4)


@dataclass(frozen=True, eq=False)
class Pair:
    """A target and a draft that disagrees with it, over one catalog."""

    catalog: Catalog
    form: Format
    target: TorchEngine
    histories: list[Int64]

    @property
    def rows(self) -> int:
        return 10 + len(TOKENS)

    def draft(self, seed: int = 1) -> PreTrainedModel:
        return make_model(rows=self.rows, seed=seed, num_hidden_layers=1, initializer_range=0.6).requires_grad_(True)

    def searcher(self, width: int = K) -> Searcher:
        return Searcher(self.target, self.form.identifiers.trie, self.form.spec.prefix_ids, width)

    def prompts(self) -> list[Int64]:
        encoder = PromptEncoder(self.form.spec, self.form.identifiers.tokens, self.form.longest)
        return [encoder.encode(history).ids for history in self.histories]

    def recommender(self, draft: TorchEngine | None, shape: DraftShape | None) -> Recommender:
        identifiers = self.form.identifiers
        prompts = PromptEncoder(self.form.spec, identifiers.tokens, self.form.longest)
        loaded = Loaded(self.catalog, identifiers.trie, prompts, self.target, draft)
        return Recommender(loaded, planning=FixedPlanning(shape), reuse=False)


@pytest.fixture(scope="module", params=[False, True], ids=["even", "ragged"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    index = tiny_catalog(
        tmp_path_factory.mktemp("catalog") / "index.json", items=60, levels=4, codes=4, ragged=request.param
    )
    catalog = Catalog.load(index, None)
    tokenizer = make_tokenizer(TOKENS)
    form = Format.compile(tokenizer, catalog, PromptOptions(history_length=4))
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 60, rng.integers(2, 7)) for _ in range(24)]
    target = make_model(rows=10 + len(TOKENS), initializer_range=0.6)
    return Pair(
        catalog, form, TorchEngine(target, form.identifiers.trie.vocabulary, precision="fp32", threads=0), histories
    )


@pytest.mark.parametrize("width", [2, 6, 12])
def test_what_is_counted_is_what_the_first_round_finds(pair: Pair, width: int) -> None:
    draft, trie, prompts = pair.draft(), pair.form.identifiers.trie, pair.prompts()
    policy = Policy(draft, pair.form)
    needed = pair.searcher().trees(prompts)
    got = AcceptanceCheck(policy, prompts, needed, trie, width)(draft)
    engine = TorchEngine(pair.draft(), trie.vocabulary, precision="fp32", threads=0)
    drafting = pair.recommender(engine, DraftShape(width, trie.length - 1))
    plain = pair.recommender(None, None)
    asked, found, levels = 0, 0, []
    for history in pair.histories:
        request = drafting.encode([pair.catalog.item_ids[item] for item in history])
        _, rounds = plain.trace(request, K)
        wanted = {int(node) for one in rounds for step in one.verdict.steps for node in step.nodes[step.needed]}
        _, rounds = drafting.trace(request, K)
        drafted = set(rounds[0].tree.nodes.node.tolist())
        asked, found = asked + len(wanted), found + len(wanted & drafted)
        steps = [step for step in rounds[0].verdict.steps if step.needed.any()]
        whole = [bool((step.found == step.needed).all()) for step in steps]
        # where nothing is missing the search ended, perhaps above the deepest leaves
        levels.append(whole.index(False) if False in whole else trie.length - 1)
    assert got["acceptance"] == pytest.approx(found / asked)
    assert got["accepted_levels"] == pytest.approx(np.mean(levels))
    assert 0 < found < asked


def test_a_draft_that_is_the_target_drafts_all(pair: Pair) -> None:
    model, trie, prompts = make_model(rows=pair.rows, initializer_range=0.6), pair.form.identifiers.trie, pair.prompts()
    check = AcceptanceCheck(Policy(model, pair.form), prompts, pair.searcher().trees(prompts), trie, K)
    assert check(model) == {"acceptance": 1.0, "accepted_levels": trie.length - 1, "agreement": trie.length - 0.999}


def test_identifiers_of_one_token_need_nothing(tmp_path: Path) -> None:
    catalog = Catalog.load(tiny_catalog(tmp_path / "index.json", levels=1), None)
    form = Format.compile(make_tokenizer(identifier_tokens()), catalog, PromptOptions())
    model, trie, prompts = make_model(rows=28), form.identifiers.trie, [np.array([2, 11])]
    policy = Policy(model, form)
    check = AcceptanceCheck(policy, prompts, policy.searcher(K).trees(prompts), trie, 4)
    assert check(model) == {"acceptance": 1.0, "accepted_levels": 0.0, "agreement": 0.001}


def test_prompts_of_many_batches_keep_their_places(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, prompts = Policy(pair.draft(), pair.form), pair.prompts()
    whole = policy.drafted(prompts, 4)
    monkeypatch.setattr("specbeam.align.policy.BATCH", 5)
    parts = policy.drafted(prompts, 4)
    assert sorted(zip(*map(np.ndarray.tolist, vars(parts).values()), strict=True)) == sorted(
        zip(*map(np.ndarray.tolist, vars(whole).values()), strict=True)
    )


def test_acceptance_is_that_of_the_weights_as_they_are(pair: Pair) -> None:
    draft, trie, prompts = pair.draft(), pair.form.identifiers.trie, pair.prompts()
    check = AcceptanceCheck(Policy(draft, pair.form), prompts, pair.searcher().trees(prompts), trie, 4)
    before = check(draft)
    other = pair.draft(seed=2)
    draft.load_state_dict(other.state_dict())
    assert check(draft) == AcceptanceCheck(
        Policy(other, pair.form), prompts, pair.searcher().trees(prompts), trie, 4
    )(other)  # fmt: skip
    draft.load_state_dict(pair.draft().state_dict())
    assert check(draft) == before


@pytest.fixture
def lessons(pair: Pair, tmp_path: Path) -> Lessons:
    return make_lessons(pair, tmp_path)


def make_lessons(pair: Pair, folder: Path, *, leaves: bool = True) -> Lessons:
    (folder / "target").mkdir(exist_ok=True)
    places = Places.choose(pair.histories, 1, None, seed=0)
    store = open_store(folder / "trees", [folder / "target"], pair.form, places, K)
    fill(store, pair.searcher(), places, pair.form, lambda stage, done, total: None)
    encoder = PromptEncoder(pair.form.spec, pair.form.identifiers.tokens, pair.form.longest)
    return Lessons(places, pair.form, encoder, store, leaves=leaves)


def of_prompts(lessons: Lessons, inputs: dict[str, object], batch: TreeBatch) -> tuple[list[list[int]], list[Int64]]:
    """What every row of a batch begins with, and its prompt."""
    prompts: list[Int64] = inputs["prompts"]  # type: ignore[assignment]
    return [
        ids[: len(prompt)].tolist() for ids, prompt in zip(batch.input_ids, prompts, strict=True)
    ], prompts  # fmt: skip


def test_a_lesson_is_the_places_with_the_targets_trees(pair: Pair, lessons: Lessons) -> None:
    inputs = lessons.collate([3, 0, 5])
    batch = batch_of(inputs)
    begins, prompts = of_prompts(lessons, inputs, batch)
    assert begins == [prompt.tolist() for prompt in prompts]
    model = make_model(rows=pair.rows, initializer_range=0.6)
    with torch.no_grad():
        torch.testing.assert_close(child_logprobs(model, batch), batch.teacher, atol=1e-2, rtol=0)  # halves on disk
    leaf = torch.from_numpy(pair.form.identifiers.trie.depth[inputs["truth_leaf"]])
    assert int(batch.truth.sum()) == int(leaf.sum())  # all of every truth's path is there
    assert lessons.lengths().max() == 4


def test_without_leaves_only_nodes_that_lead_on_are_left(pair: Pair, lessons: Lessons, tmp_path: Path) -> None:
    whole = batch_of(lessons.collate([0, 1, 2]))
    few = batch_of(make_lessons(pair, tmp_path, leaves=False).collate([0, 1, 2]))
    assert bool((few.inner | (few.depth == 0)).all())
    kept = whole.inner | (whole.depth == 0)
    assert torch.equal(few.owner, whole.owner[kept])
    assert torch.equal(few.teacher, whole.teacher[kept[whole.parent]])
    assert torch.equal(few.beams, whole.beams[kept[whole.parent]])


def test_an_on_policy_lesson_holds_the_drafts_own_beams_judged_by_the_target(pair: Pair, lessons: Lessons) -> None:
    draft, trie = pair.draft(), pair.form.identifiers.trie
    inputs = lessons.collate([4, 1, 2])
    got = TreeBatch(**Policy(draft, pair.form).lesson(inputs, lessons, pair.searcher(), K))
    _, prompts = of_prompts(lessons, inputs, got)
    engine = TorchEngine(pair.draft(), trie.vocabulary, precision="fp32", threads=0)
    own = Searcher(engine, trie, pair.form.spec.prefix_ids, K).trees(prompts, truth_paths(trie, inputs["truth_leaf"]))
    expected = lessons.batcher(prompts, own, inputs["truth_leaf"])
    assert got.tensors().keys() == expected.tensors().keys()
    for name, tensor in got.tensors().items():
        if name != "teacher":
            assert torch.equal(tensor, expected.tensors()[name]), name
    with torch.no_grad():
        judged = child_logprobs(make_model(rows=pair.rows, initializer_range=0.6), got)
        torch.testing.assert_close(got.teacher, judged, atol=1e-5, rtol=0)
        own_view = child_logprobs(pair.draft(), got)
        torch.testing.assert_close(expected.teacher, own_view, atol=1e-5, rtol=0)
        assert float((own_view - judged).abs().max()) > 0.1


def test_on_policy_trees_follow_the_weights(pair: Pair, lessons: Lessons) -> None:
    draft = pair.draft()
    policy, inputs = Policy(draft, pair.form), lessons.collate([0, 1, 2, 3])
    before = policy.lesson(inputs, lessons, pair.searcher(), K)
    draft.load_state_dict(pair.draft(seed=2).state_dict())
    after = policy.lesson(inputs, lessons, pair.searcher(), K)
    assert after["input_ids"].tolist() != before["input_ids"].tolist()


@pytest.mark.parametrize("training", [True, False])
def test_a_lesson_can_be_learned_from_under_autocast(pair: Pair, lessons: Lessons, training: bool) -> None:
    """The search before it must leave nothing behind: neither half-precision copies of weights nor another mode."""
    draft = pair.draft().train(training)
    policy, inputs = Policy(draft, pair.form), lessons.collate([0, 1, 2, 3])
    draft.train(training)
    with torch.autocast("cpu", torch.bfloat16):
        batch = TreeBatch(**policy.lesson(inputs, lessons, pair.searcher(), K))
        child_logprobs(draft, batch).sum().backward()
    assert draft.training is training
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in draft.parameters())
