"""NaN never passes for an answer: who is refused, in what words, and that nobody else notices."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import bad, good, lines, run, user, write
from scripted_recommender import MODES, PREFIX, SPEC, assert_same, named, pairs
from scripted_search import random_catalog
from specbeam.align.teaching.searcher import Searcher
from specbeam.catalog.errors import EngineError, SpecBeamError
from specbeam.catalog.finite import all_finite, are_logprobs, finite, largest_difference
from specbeam.catalog.hashing import UInt64
from specbeam.catalog.prompts.encoder import PromptEncoder
from specbeam.catalog.trie import ItemTrie
from specbeam.engines import compare as check
from specbeam.engines.base import Engine, Float32
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.onnxruntime.backend import OrtBackend
from specbeam.engines.scripted import ScriptedEngine
from specbeam.runtime import (
    Drafting,
    DraftShape,
    EngineChoice,
    Recommendation,
    Recommender,
    RequestError,
    RequestFailure,
    Verification,
)
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning
from specbeam.runtime.search.noise import perturbed
from specbeam.runtime.search.scoring import Scoring
from tiny_bundle import ENGINE, Tiny, break_embedding, break_rows
from tiny_models import identifier_tokens, make_model, make_tokenizer, tiny_catalog

INF, NAN = float("inf"), float("nan")
SOME = 12  # one context in so many is broken


def test_what_is_a_number() -> None:
    assert finite(2, "the loss", "Stop.") == 2.0
    for value in (NAN, INF, -INF):
        with pytest.raises(EngineError, match=r"the loss is (nan|-?inf); expected a finite number\. Stop\."):
            finite(value, "the loss", "Stop.", EngineError)
        with pytest.raises(SpecBeamError, match=r"a time is .*Tune\."):
            all_finite(np.array([[1.0, value], [2.0, 3.0]]), "a time", "Tune.")
    all_finite(np.empty(0), "a time", "Tune.")


def test_what_is_a_log_probability() -> None:
    assert are_logprobs(np.array([-1.0, -INF, 0.0]))
    assert are_logprobs(np.empty((0, 3)))
    for value in (NAN, INF):
        assert not are_logprobs(np.array([-1.0, value, 3.0], np.float32))


def test_the_largest_difference() -> None:
    a = np.array([1.0, -INF, 2.0], np.float32)
    assert largest_difference(a, np.array([1.5, -INF, 2.0])) == 0.5
    assert largest_difference(a, np.array([1.5, 3.0, 2.0])) == INF
    assert np.isnan(largest_difference(a, np.array([1.5, NAN, 9.0])))
    assert np.isnan(largest_difference(a, np.array([NAN, -INF, 2.0])))


def test_a_family_without_any_probability_has_none() -> None:
    logprobs, first = np.array([-INF, -INF, -1.0, -INF, NAN, -1.0, INF, -1.0]), np.array([0, 2, 4, 6])
    scores = Scoring("constrained")(logprobs, first)
    assert scores[:4].tolist() == [-INF, -INF, 0.0, -INF]
    assert np.isnan(scores[4:6]).all()
    assert not are_logprobs(scores[6:])
    keys = perturbed(
        np.array([1.0, 2.0, -INF]), np.array([0, 0, 1, 1, 2]), np.array([-INF, -INF, 0, -INF, -INF]), np.ones(5)
    )
    assert keys.tolist() == [-INF, -INF, 2.0, -INF, -INF]


class Broken(ScriptedEngine):
    """Gives NaN, or infinity, after some contexts."""

    def _logprobs(self, context: UInt64) -> Float32:
        logprobs = super()._logprobs(context)
        kind = context % np.uint64(2 * SOME)
        logprobs[kind == 0] = NAN
        logprobs[kind == 1, ::3] = INF
        return logprobs


def recommenders(
    verification: Verification, batch: int, *, draft: type[ScriptedEngine] | None, target: type[ScriptedEngine] = Broken
) -> tuple[Recommender, Recommender]:
    """One over a broken engine, and one over a whole one that is the same otherwise."""
    rows = random_catalog(np.random.default_rng(5), 60, 3, 5)
    trie = ItemTrie.build(rows)
    both = []
    for whole in (False, True):
        kinds = (ScriptedEngine, ScriptedEngine) if whole else (target, draft or ScriptedEngine)
        engines = [
            kind(len(trie.vocabulary), seed=1, disagreement=d, sharpness=2)
            for kind, d in zip(kinds, (0, 0.4), strict=True)
        ]
        loaded = Loaded(
            named(rows), trie, PromptEncoder(SPEC, trie.item_tokens(), 10_000), engines[0],
            engines[1] if draft else None, engine="made-up (fp16)",
        )  # fmt: skip
        planning = FixedPlanning(DraftShape(6, 2) if draft else None)
        both.append(Recommender(loaded, planning=planning, verification=verification, batching=batch))
    return both[0], both[1]


HISTORIES = [[f"i{i}", f"i{(7 * i) % 60}"][: 1 + i % 2] for i in range(40)]


@pytest.mark.parametrize("draft", [None, ScriptedEngine], ids=["plain", "drafted"])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("mode", MODES)
def test_others_get_the_lists_they_would_have_had(mode: str, batch: int, draft: type[ScriptedEngine] | None) -> None:
    broken, whole = recommenders(MODES[mode], batch, draft=draft)
    requests = [whole.encode(history, user=f"u{i}") for i, history in enumerate(HISTORIES)]
    expected, got = whole.run(requests, 3), broken.run(requests, 3)
    failed = [result for result in got if isinstance(result, RequestFailure)]
    assert 0 < len(failed) < len(got)
    for number, (result, wanted) in enumerate(zip(got, expected, strict=True)):
        assert isinstance(wanted, Recommendation)
        if isinstance(result, RequestFailure):
            assert (result.number, result.user, result.engine) == (number, f"u{number}", "made-up (fp16)")
            assert "made-up (fp16) gives NaN or infinity in place of a log-probability" in result.reason
        else:
            assert_same(pairs(result), pairs(wanted))
    with pytest.raises(RequestError, match=rf"^{len(failed)} of 40 requests .*number {failed[0].number} \(from 0, of "):
        broken.recommend(HISTORIES, 3, users=[f"u{i}" for i in range(40)])
    with pytest.raises(RequestError) as caught:
        broken.recommend(HISTORIES, 3, users=[f"u{i}" for i in range(40)])
    assert caught.value.results == got
    with pytest.raises(RequestError):
        broken.trace(requests[failed[0].number], 3)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("mode", MODES)
def test_a_broken_draft_drafts_nothing_and_changes_no_list(mode: str, batch: int) -> None:
    broken, whole = recommenders(MODES[mode], batch, draft=Broken, target=ScriptedEngine)
    got, expected = (one.recommend(HISTORIES, 3) for one in (broken, whole))
    assert 0 < broken.stats.failed_drafts < len(HISTORIES)
    assert whole.stats.failed_drafts == 0
    for result, wanted in zip(got, expected, strict=True):
        if mode.startswith(("strict", "sampled")):
            assert_same(pairs(result), pairs(wanted))
        assert len(result.items) == len(wanted.items)


def test_nothing_is_learned_from_a_teacher_that_gives_no_numbers() -> None:
    trie = ItemTrie.build(random_catalog(np.random.default_rng(5), 60, 3, 5))
    searcher = Searcher(Broken(len(trie.vocabulary), seed=1), trie, PREFIX, 5)
    with pytest.raises(EngineError, match="of 30 prompts the model gives NaN"):
        searcher.trees([np.array([*PREFIX, token]) for token in range(30)])


def marked(tiny: Tiny) -> tuple[int, str, set[str]]:
    """A token that ends identifiers (so that it is in prompts only), an item that has it, and all that have."""
    bundle = Bundle.open(tiny.bundle)
    catalog, trie = bundle.catalog(), bundle.trie()
    item = catalog.item_ids[3]
    token = int(trie.item_tokens()[3, -1])
    ids = trie.item_tokens()[:, -1]
    return token, item, {catalog.item_ids[i] for i in np.flatnonzero(ids == token)}


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    "verification",
    [
        Verification(),
        Verification("sampled", seed=3),
        Verification("tolerant", slack=0.2),
        Verification("relaxed", seed=3),
    ],
    ids=lambda verification: verification.mode,
)
def test_a_nan_row_of_an_engine_s_embedding(tiny: Tiny, bundle: Path, verification: Verification, batch: int) -> None:
    """In all modes: users whose history has the token get a reason, all others what they always got."""
    token, _, holders = marked(tiny)
    break_rows(bundle, [token])
    histories = [[str(i), str(i + 1)] for i in range(16)]
    whole, broken = (
        Recommender.open(
            path,
            verification=verification,
            engine=EngineChoice(threads=1),
            drafting=Drafting(shape=DraftShape(5, 2)),
            batching=batch,
        )
        for path in (tiny.bundle, bundle)
    )
    expected = whole.recommend(histories, 5)
    got = broken.run([broken.encode(history) for history in histories], 5)
    assert 0 < sum(isinstance(result, RequestFailure) for result in got) < len(got)
    for history, result, wanted in zip(histories, got, expected, strict=True):
        assert isinstance(result, RequestFailure) == bool(holders & {*history})
        if isinstance(result, RequestFailure):
            assert result.engine == f"{ENGINE} (fp32)"
        else:
            assert_same(pairs(result), pairs(wanted))


def requests_of(item: str, holders: set[str], count: int, at: Sequence[int]) -> list[dict]:
    """Requests that are good, but for those at some places."""
    fine = [str(i) for i in range(40) if str(i) not in holders]
    return [user(f"u{i}", item if i in at else fine[i % len(fine)]) for i in range(count)]


def test_infer_rejects_a_request_without_numbers_and_exits_with_1(
    tiny: Tiny, bundle: Path, output: Path, tmp_path: Path
) -> None:
    token, item, holders = marked(tiny)
    break_rows(bundle, [token])
    path = write(tmp_path / "h.jsonl", *requests_of(item, holders, 12, [2, 7]))
    message = bad("infer", bundle, path, "-o", output, "-k", 3, "--threads", 1)
    assert "2 requests could not be answered, and are among the rejects" in message
    assert f"{ENGINE} (fp32) gives NaN" in message
    assert f"10 were served: see {output}" in message
    good("infer", tiny.bundle, path, "-o", tmp_path / "whole.jsonl", "-k", 3, "--threads", 1)
    expected = [line for line in lines(tmp_path / "whole.jsonl") if line["line"] not in (3, 8)]
    assert [line["line"] for line in lines(output)] == [line["line"] for line in expected]
    for got, wanted in zip(lines(output), expected, strict=True):
        assert [best["item"] for best in got["items"]] == [best["item"] for best in wanted["items"]]
    rejects = lines(tmp_path / "recs.jsonl.rejects.jsonl")
    assert [(reject["line"], json.loads(reject["raw"])["items"]) for reject in rejects] == [(3, [item]), (8, [item])]
    assert all(f"{ENGINE} (fp32) gives NaN" in reject["reason"] for reject in rejects)


@pytest.mark.parametrize("batch", [1, 8])
def test_infer_stops_when_whole_batches_have_no_numbers(
    tiny: Tiny, bundle: Path, output: Path, tmp_path: Path, batch: int
) -> None:
    """What was served before is kept, and another run goes on with it: the engine may do better then."""
    token, item, holders = marked(tiny)
    break_rows(bundle, [token])
    entries = requests_of(item, holders, 8, []) + requests_of(item, holders, 30, range(30))
    path = write(tmp_path / "h.jsonl", *entries)
    command = ["infer", bundle, path, "-o", output, "--batch-size", batch, "--threads", 1]
    message = bad(*command)
    assert "Stopped, because whole batches failed: 8 requests in succession could not be answered" in message
    assert f"8 requests are kept in {output}.partial. Run the same command again to go on" in message
    assert not output.exists()
    shutil.rmtree(bundle / "engines" / ENGINE)
    shutil.copytree(tiny.bundle / "engines" / ENGINE, bundle / "engines" / ENGINE)
    assert "differs in: engine" in bad(*command)  # it is another engine


def test_an_engine_of_nothing_but_nan(bundle: Path, output: Path, histories: Path) -> None:
    """Every verb that asks it fails, and leaves no list behind."""
    break_rows(bundle, slice(None))
    assert "6 requests could not be answered" in bad("infer", bundle, histories, "-o", output, "--threads", 1)
    assert not output.exists()
    page = output.with_name("tree.html")
    assert f"{ENGINE} (fp32) gives NaN" in bad("explain", bundle, "--history", "1,2", "-o", page, "--threads", 1)
    assert not page.exists()
    assert f"{ENGINE} (fp32) gives NaN" in bad("tune", bundle, histories, "--threads", 1)


def test_strict_input_says_that_lines_were_rejected(tiny: Tiny, output: Path, tmp_path: Path) -> None:
    fine = write(tmp_path / "fine.jsonl", user("a", 1), user("b", 2))
    some = write(tmp_path / "some.jsonl", user("a", 1), "nonsense", user("b", 2))
    command = ("infer", tiny.bundle, "-o", output, "--overwrite", "--threads", 1)
    good(*command, fine, "--strict-input")
    good(*command, some)
    result = run(*command, some, "--strict-input")
    assert result.exit_code == 3
    assert "1 lines were rejected" in result.output
    assert len(lines(output)) == 2
    assert run(*command, write(tmp_path / "none.jsonl", "nonsense"), "--strict-input").exit_code == 1
    groups = ("group-users", some, "-o", tmp_path / "g.json", "--groups", 2, "--method", "random", "--overwrite")
    good(*groups)
    assert run(*groups, "--strict-input").exit_code == 3


def test_a_broken_draft_is_told_of(tiny: Tiny, bundle: Path, output: Path, tmp_path: Path) -> None:
    break_rows(bundle, slice(None), "draft")
    path = write(tmp_path / "h.jsonl", *(user(i, i) for i in range(5)))
    result = good("infer", bundle, path, "-o", output, "--speculation", "fixed", "--threads", 1)
    assert "for 5 requests the draft's engine gave NaN or infinity and drafted nothing" in result.output
    good("infer", tiny.bundle, path, "-o", tmp_path / "whole.jsonl", "--threads", 1)
    for got, wanted in zip(lines(output), lines(tmp_path / "whole.jsonl"), strict=True):
        assert [best["item"] for best in got["items"]] == [best["item"] for best in wanted["items"]]


def test_a_build_without_numbers_is_refused(tiny: Tiny, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only prompts of the bundle's own show it: no random token is <s>."""
    engine = bundle / "engines" / ENGINE
    before = (engine / "engine.json").read_bytes()
    real, loaded = OrtBackend.load, []

    def load(self: OrtBackend, opened: Bundle, role: str, folder: Path, *rest: Any) -> Engine:
        if role == "draft":
            break_embedding(folder / "model.onnx", [2])
        loaded.append(role)
        return real(self, opened, role, folder, *rest)

    monkeypatch.setattr(OrtBackend, "load", load)
    monkeypatch.setattr(check, "random_tokens", lambda facts, past, new, batch: np.full((batch, new), 10))
    message = r"The draft, built in fp32, gives NaN or infinity .* on the prompt of a history \(length 1\)"
    with pytest.raises(EngineError, match=message):
        build_engine(bundle, threads=1, overwrite=True)
    assert loaded == ["target", "draft"]
    assert (engine / "engine.json").read_bytes() == before


def test_a_model_that_overflows_in_fp16_is_called_that(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(identifier_tokens())
    model = make_model(rows=len(tokenizer))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(3e4)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "target")
    export = ("export", "--target", tmp_path / "target", "--catalog", tiny_catalog(tmp_path / "index.json"))
    good(*export, "--output", tmp_path / "bundle")
    message = bad("build-engine", tmp_path / "bundle", "--precision", "fp16", "--threads", 1)
    assert "The target's activations overflow in fp16, whose largest finite number is 65,504: on " in message
    assert f"specbeam build-engine {tmp_path / 'bundle'} --precision fp32" in message
    good("build-engine", tmp_path / "bundle", "--threads", 1)
    assert [path.name for path in (tmp_path / "bundle/engines").iterdir() if path.is_dir()] == [ENGINE]
    message = bad(*export, "--output", tmp_path / "half", "--precision", "fp16")
    assert "The LlamaForCausalLM's activations overflow in fp16, whose largest finite number is 65,504" in message
    assert "fault of the exporter" not in message
    assert not (tmp_path / "half").exists()
