"""Encoder-decoders with everything on a device, held against the plain engine: calls, lists, memory, refusals."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.shared import as_ranked
from device_cases import prompt
from device_engines import built_encoder_decoder
from encoder_decoder_cases import LATER, PROMPTS, Talk, check_talk
from specbeam.catalog.errors import EngineError
from specbeam.engines.bundle.facts import ENCODER, Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.cache import ReadCache
from specbeam.engines.memory import held
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.device_encoder_decoder import DeviceEncoderDecoder
from specbeam.engines.onnxruntime.encoder_decoder import EncoderDecoderEngine
from specbeam.runtime import DraftShape, Recommender, Verification
from specbeam.runtime.loaded import Loaded
from specbeam.runtime.planning.policy import FixedPlanning

ROLES: tuple[Role, ...] = ("target", "draft")


@pytest.fixture(scope="module")
def opened(encoder_decoders: Path) -> Bundle:
    return Bundle.open(encoder_decoders)


@pytest.fixture(scope="module")
def device(opened: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[Role, DeviceEncoderDecoder]:
    folder = tmp_path_factory.mktemp("device")
    return {role: built_encoder_decoder(opened, role, folder / role) for role in ROLES}


def plain(bundle: Bundle, role: Role) -> EncoderDecoderEngine:
    engine = load_ort_engine(bundle.graph(role), bundle.facts(role), device="cpu", precision="fp32", threads=1)
    assert isinstance(engine, EncoderDecoderEngine)
    return engine


@pytest.mark.parametrize("role", ROLES)
def test_calls_are_those_of_the_plain_engine_whatever_happens_to_the_cache(
    opened: Bundle, device: dict[Role, DeviceEncoderDecoder], role: Role
) -> None:
    check_talk(device[role], plain(opened, role), 5e-5)


def test_half_precision(opened: Bundle, tmp_path: Path) -> None:
    for role in ROLES:
        check_talk(built_encoder_decoder(opened, role, tmp_path / role, "fp16"), plain(opened, role), 0.1)


@pytest.mark.parametrize("verification", [Verification(), Verification("sampled", seed=3)])
@pytest.mark.parametrize("batch", [1, 3])
def test_lists_are_those_of_the_plain_engine(
    opened: Bundle, device: dict[Role, DeviceEncoderDecoder], verification: Verification, batch: int
) -> None:
    trie, lists = opened.trie(), []
    for engines in ({role: plain(opened, role) for role in ROLES}, device):
        loaded = Loaded(opened.catalog(), trie, opened.prompts(trie), engines["target"], engines["draft"])
        planning = FixedPlanning(DraftShape(6, 2))
        recommender = Recommender(loaded, planning=planning, verification=verification, batching=batch)
        histories = [[str(i) for i in range(start, start + 1 + start % 6)] for start in range(0, 30, 4)]
        lists.append(
            [(as_ranked(result), result.stats) for k in (1, 5) for result in recommender.recommend(histories, k)]
        )
    for (expected, stats), (got, own) in zip(*lists, strict=True):
        assert [item for item, _ in got] == [item for item, _ in expected]
        np.testing.assert_allclose([score for _, score in got], [score for _, score in expected], atol=1e-4)
        assert own == stats


def test_prompts_are_padded_to_sizes_that_come_again(opened: Bundle, tmp_path: Path) -> None:
    engine = built_encoder_decoder(opened, "draft", tmp_path)
    assert [engine.read([np.full(length, 5)]).read for length in (1, 8, 9, 21)] == [8, 8, 16, 24]
    addresses = []
    for _ in range(3):
        talk = Talk(engine)
        for _ in range(3):
            talk.follow(np.array([5, 6, 7]))
        leases = [held(cache).memory for cache in (talk.cache.own, talk.cache.prompts)]
        addresses.append([lease and lease.address for lease in leases])
        del talk, leases
    assert addresses[0] == addresses[1] == addresses[2]
    assert len(engine._encoder._bindings) == 3 + 1  # the two shortest are of one size


def test_what_was_read_is_copied_only_where_rows_change(device: dict[Role, DeviceEncoderDecoder]) -> None:
    cache = Talk(device["target"]).cache
    before = held(cache.prompts).memory
    copied = cache.copy()
    cache.keep(np.arange(3))
    assert held(copied.prompts).memory is held(cache.prompts).memory is before
    cache.keep(np.array([2, 0]))
    assert held(cache.prompts).memory is not before
    assert cache.lengths.tolist() == [21, 4]
    cache.join(Talk(device["target"], LATER).cache)
    assert (cache.batch, cache.read, cache.lengths.tolist()) == (4, 24, [21, 4, 9, 2])


def test_refusals(opened: Bundle, device: dict[Role, DeviceEncoderDecoder], tmp_path: Path) -> None:
    engine, facts = device["target"], opened.facts("target")
    with pytest.raises(EngineError, match="has an encoder: its caches begin with prompts"):
        engine.new_cache(1)
    cache = engine.read(PROMPTS[:1])
    with pytest.raises(EngineError, match=r"runs on the caches it hands out \(read\); got HeldCache"):
        engine.forward(prompt(engine, 1, 1), cache.own)
    other = plain(opened, "target").read(PROMPTS[:1])
    with pytest.raises(EngineError, match=r"runs on the caches it hands out \(new_cache\); got OrtCache"):
        engine.forward(prompt(engine, 1, 1), ReadCache(cache.own, other.prompts, cache.lengths))
    with pytest.raises(EngineError, match="failed on a call of 1 requests with 2 tokens"):
        engine.read([np.array([5, 9999])])
    built_encoder_decoder(opened, "target", tmp_path)
    shutil.copy(opened.encoder("draft"), tmp_path / ENCODER)
    with pytest.raises(
        EngineError, match=rf"{ENCODER} is no graph of this model: the output read_key_values.1.key is mis"
    ):
        load_ort_engine(tmp_path / "model.onnx", facts, device="cpu", precision="fp32", threads=1)
