"""Against `transformers` `generate`: every architecture with tiny weights, and the real pair on real users."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.shared import TrieGenerate, as_ranked, leaf_identifiers, ranking_fault, real_users, shared_data
from quick_builds import few_timings
from specbeam.engines.build import build_engine
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.torch import load_model
from specbeam.export import export_bundle
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender, Verification
from tiny_models import make_text_tokenizer, text_catalog, tiny_catalog, tiny_checkpoint

SHARED = shared_data()
pytestmark = pytest.mark.usefixtures("quick_exports")
needs_data = pytest.mark.skipif(SHARED is None, reason="the shared data and models are absent (set SPECBEAM_DATA)")


def noisy_copy(checkpoint: Path, output: Path, noise: float) -> Path:
    """A draft that mostly agrees: the same model with noise on its weights, and its tokenizer."""
    model = load_model(checkpoint, torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(output)
    for file in checkpoint.glob("tokenizer*"):
        (output / file.name).write_bytes(file.read_bytes())
    return output


def compare(
    bundle: Path, target: Path, histories: list[list[str]], widths: list[int], *, scoring: str = "full",
    engine: str | None = None, shape: DraftShape | None = None, batch_size: int = 8,
) -> int:  # fmt: skip
    """Assert speculative = plain = generate for every history and width; returns how many rejections happened."""
    opened = Bundle.open(bundle)
    trie, catalog = opened.trie(), opened.catalog()
    model = load_model(target, torch.float32)
    generate = TrieGenerate(model, trie, end_token=opened.manifest.end_token, scoring=scoring)  # type: ignore[arg-type]
    names = leaf_identifiers(trie, catalog.identifiers)
    common = {"engine": EngineChoice(engine, threads=1), "verification": Verification(scoring=scoring)}  # type: ignore[arg-type]
    fast = Recommender.open(opened, drafting=Drafting(shape=shape or DraftShape()), batching=batch_size, **common)  # type: ignore[arg-type]
    plain = Recommender.open(opened, drafting="none", **common)  # type: ignore[arg-type]
    for k in widths:
        for history, a, b in zip(histories, fast.recommend(histories, k), plain.recommend(histories, k), strict=True):
            truth = [(names[leaf], score) for leaf, score in generate(fast.encode(history).prompt, k)]
            # several items may share an identifier, and the list is cut at k items
            for result in (a, b):
                ranked = as_ranked(result)
                assert ranking_fault(ranked, truth[: len(ranked)]) is None
                assert len(result.items) == min(k, len(catalog.item_ids))
    return fast.stats.rejections


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_every_architecture_equals_generate(kind: str, tmp_path: Path) -> None:
    target = tiny_checkpoint(tmp_path / "target", kind, tied=kind in ("llama", "qwen3"))
    draft = noisy_copy(target, tmp_path / "draft", 0.1)
    index = tiny_catalog(tmp_path / "index.json", items=60)
    export_bundle(target, draft, index, None, tmp_path / "bundle", history_length=6)
    build_engine(tmp_path / "bundle", threads=1)
    rng = np.random.default_rng(3)
    items = list(json.loads(index.read_text()))
    histories = [rng.choice(items, rng.integers(1, 9)).tolist() for _ in range(12)]
    rejections = compare(tmp_path / "bundle", target, histories, [1, 4, 10, 60], shape=DraftShape(8, 2), batch_size=5)
    assert rejections > 0
    assert (
        compare(tmp_path / "bundle", target, histories[:3], [5], engine="torch-cpu-fp32", shape=DraftShape(8, 2)) >= 0
    )


@pytest.mark.parametrize("scoring", ["full", "constrained"])
@pytest.mark.parametrize("kinds", [("t5", None), ("mt5", None), ("t5", "llama"), ("llama", "t5")])
def test_encoder_decoders_equal_generate(kinds: tuple[str, str | None], scoring: str, tmp_path: Path) -> None:
    """Of one family, and a pair of both; identifiers of unequal lengths end with </s>."""
    kind, other = kinds
    target = tiny_checkpoint(tmp_path / "target", kind)
    draft = tmp_path / "draft"
    _ = noisy_copy(target, draft, 0.1) if other is None else tiny_checkpoint(draft, other, seed=1)
    index = tiny_catalog(tmp_path / "index.json", items=60, ragged=True)
    export_bundle(target, draft, index, None, tmp_path / "bundle", history_length=6, prompt="user likes {history} :")
    build_engine(tmp_path / "bundle", threads=1)
    rng = np.random.default_rng(3)
    items = list(json.loads(index.read_text()))
    histories = [rng.choice(items, rng.integers(1, 9)).tolist() for _ in range(8)]
    shape = DraftShape(8, 2)
    assert compare(tmp_path / "bundle", target, histories, [1, 4, 10], scoring=scoring, shape=shape, batch_size=3) > 0
    torch_engine = {"engine": "torch-cpu-fp32", "scoring": scoring}
    assert compare(tmp_path / "bundle", target, histories[:3], [5], shape=shape, **torch_engine) >= 0  # type: ignore[arg-type]


def test_settings_of_the_checkpoint_change_neither_search_nor_generate(tmp_path: Path) -> None:
    target = tiny_checkpoint(tmp_path / "target")
    settings = {
        "repetition_penalty": 2.0, "suppress_tokens": [11, 17, 23], "forced_eos_token_id": 3, "no_repeat_ngram_size": 2,
        "top_k": 1, "num_beams": 3, "early_stopping": True, "length_penalty": -3.0, "sequence_bias": [[[12], -9.0]],
    }  # fmt: skip
    (target / "generation_config.json").write_text(json.dumps(settings))
    index = tiny_catalog(tmp_path / "index.json", items=60)
    export_bundle(
        target, noisy_copy(target, tmp_path / "draft", 0.1), index, None, tmp_path / "bundle", history_length=6
    )
    build_engine(tmp_path / "bundle", threads=1)
    compare(tmp_path / "bundle", target, [["1", "4"], ["7"], ["30", "2", "59", "8"]], [1, 5, 60])


@pytest.mark.parametrize("scoring", ["full", "constrained"])
@pytest.mark.parametrize("text", [False, True])
def test_unequal_lengths_equal_generate(text: bool, scoring: str, tmp_path: Path) -> None:
    tokenizer = make_text_tokenizer() if text else None
    target = tiny_checkpoint(tmp_path / "target", tokenizer=tokenizer)
    draft = noisy_copy(target, tmp_path / "draft", 0.1)
    index = tmp_path / "index.json"
    _ = text_catalog(index) if text else tiny_catalog(index, items=70, levels=3, codes=5, ragged=True)
    prompt = {"prompt": "<s>{history}," if text else None, "separator": "," if text else ""}
    export_bundle(target, draft, index, None, tmp_path / "bundle", history_length=3, **prompt)  # type: ignore[arg-type]
    build_engine(tmp_path / "bundle", threads=1)
    trie = Bundle.open(tmp_path / "bundle").trie()
    assert len(set(trie.depth[trie.child_count == 0].tolist())) > 1
    rng = np.random.default_rng(4)
    items = list(json.loads(index.read_text()))
    histories = [rng.choice(items, rng.integers(1, 5)).tolist() for _ in range(8)]
    widths = [1, 3, 8, trie.identifiers]
    rejections = compare(
        tmp_path / "bundle", target, histories, widths, scoring=scoring, shape=DraftShape(5, 2), batch_size=3
    )
    assert rejections > 0


@pytest.fixture(scope="module")
def beauty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SHARED is not None
    bundle = tmp_path_factory.mktemp("beauty") / "bundle"
    pair, data = SHARED / "models/beauty", SHARED / "data/beauty"
    export_bundle(pair / "target", pair / "draft", data / "index.json", data / "items.json", bundle)
    with few_timings():
        build_engine(bundle, threads=1)
    return bundle


@needs_data
@pytest.mark.parametrize(("k", "scoring"), [(1, "full"), (5, "constrained"), (10, "full"), (20, "constrained")])
def test_beauty_equals_generate(k: int, scoring: str, beauty: Path) -> None:
    assert SHARED is not None
    _, histories, _ = real_users(SHARED / "data/beauty")
    assert compare(beauty, SHARED / "models/beauty/target", histories[:600:20], [k], scoring=scoring) > 0


@needs_data
def test_beauty_lists_are_valid(beauty: Path) -> None:
    assert SHARED is not None
    _, histories, _ = real_users(SHARED / "data/beauty")
    recommender = Recommender.open(beauty, engine=EngineChoice(threads=1), drafting=Drafting(shape=DraftShape()))
    items = recommender.catalog.position
    for result in recommender.recommend(histories[::18], 20):
        names = [entry.item for entry in result.items]
        assert len(names) == len(set(names)) == 20
        assert all(recommender.catalog.identifiers[items[entry.item]] == entry.identifier for entry in result.items)
        scores = [entry.score for entry in result.items]
        assert scores == sorted(scores, reverse=True)
