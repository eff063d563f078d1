"""A bundle built for TensorRT, opened, and held against ONNX Runtime: on a GPU, and on the stand-in for one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specbeam.engines.build import Order, build_engine
from specbeam.engines.bundle.facts import EnginePrecision, RoleFacts
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.registry import load_engine
from specbeam.engines.tensorrt.backend import CallSizes, TensorRTBackend
from specbeam.runtime import Drafting, DraftShape, EngineChoice, Recommender

SIZES = CallSizes(max_batch=8, max_nodes=64)
REFERENCE = "onnxruntime-cpu-fp32"


def build(bundle: Path, precision: EnginePrecision) -> str:
    """Build an engine; returns its name."""
    return build_engine(bundle, backend=TensorRTBackend("cuda", SIZES), precision=precision, threads=1).name


def build_int8(bundle: Path, order: Order | None = None, method: Any = "auto") -> str:
    """Build a quantized engine, by default int8 for the GPU at hand, on random histories; returns its name."""
    from specbeam.calib.build import build_int8 as build_quantized
    from specbeam.calib.options import Int8Options
    from specbeam.catalog.histories.dataset import Example

    opened = Bundle.open(bundle)
    items = np.array(opened.catalog().item_ids)
    drawn = items[np.random.default_rng(0).integers(0, len(items), (120, 7))].tolist()
    examples = [Example(f"u{i}", tuple(history), (label,)) for i, (*history, label) in enumerate(drawn)]
    order = order or Order.check(opened, TensorRTBackend("cuda", SIZES), "int8", None, 1)
    return build_quantized(order, examples, Int8Options(method=method, calibration_size=40, gate=False)).name


def loop(bundle: Path, name: str, histories: Sequence[Sequence[str]], *, k: int = 5) -> float:
    """Recommend with drafting and without, which must agree; returns the mean overlap with the float32 reference."""
    lists = {}
    for key, engine, drafter in (("plain", name, "none"), ("drafted", name, "model"), ("reference", REFERENCE, "none")):
        shape = DraftShape(8, 2) if drafter == "model" else None
        recommender = Recommender.open(
            bundle, engine=EngineChoice(engine, threads=1), drafting=Drafting(drafter, shape=shape), batching=4
        )
        results = recommender.recommend(histories, k=k)
        lists[key] = [[(best.item, best.score) for best in result.items] for result in results]
    shared = [_overlap(one, two) for one, two in zip(lists["plain"], lists["drafted"], strict=True)]
    # Kernels may differ between shapes: scores close to each other may swap.
    assert np.mean(shared) > 0.9, shared
    for one, two in zip(lists["plain"], lists["drafted"], strict=True):
        np.testing.assert_allclose([score for _, score in one], [score for _, score in two], atol=0.2)
    return float(np.mean([_overlap(one, two) for one, two in zip(lists["plain"], lists["reference"], strict=True)]))


def roles(bundle: Path, name: str) -> dict[str, RoleFacts]:
    """What engine.json says; every role's engine opens."""
    opened = Bundle.open(bundle)
    facts = opened.engine_facts(name)
    for role in ("target", "draft"):
        assert load_engine(opened, role, name, threads=1).columns == opened.manifest.catalog_tokens
    return facts.roles


def latency_table(name: str, roles: dict[str, RoleFacts]) -> str:
    """Milliseconds a call, as they were measured when the engine was built."""
    lines = [f"{name}: role, batch, cached, new, milliseconds"]
    for role, facts in roles.items():
        lines += [f"{role:7} {p.batch:4} {p.past:5} {p.new:5} {p.milliseconds:9.3f}" for p in facts.latency]
    return "\n".join(lines)


def _overlap(one: list[tuple[str, float]], two: list[tuple[str, float]]) -> float:
    return len({item for item, _ in one} & {item for item, _ in two}) / max(len(one), 1)
