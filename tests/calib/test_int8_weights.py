"""int8-weights: an engine of integer weights, for a backend that takes them as compilers do."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from specbeam.calib.build import build_int8
from specbeam.calib.int8 import Int8Build, offered
from specbeam.calib.options import Int8Options
from specbeam.calib.trials import SEARCHES
from specbeam.catalog.errors import EngineError, OptionError
from specbeam.catalog.histories.dataset import Example
from specbeam.engines.backend import WeightForm
from specbeam.engines.build import Order, build_engine
from specbeam.engines.bundle.facts import EnginePrecision, Precision
from specbeam.engines.bundle.inspect import describe
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.onnxruntime.backend import OrtBackend
from specbeam.engines.tensorrt.backend import TensorRTBackend
from specbeam.engines.tensorrt.build import TrtOptions
from specbeam.engines.tensorrt.flavour import RTX
from tiny_bundle import Tiny

NAME = "onnxruntime-cpu-int8-weights"


class Compiled(OrtBackend):
    """A backend that takes integer weights as compilers do, and runs them on the CPU."""

    integers = ("weight8", "weight4")
    weights: ClassVar[WeightForm] = "dequantize"
    runs: ClassVar[dict[str, tuple[EnginePrecision, ...]]] = {"cpu": ("fp32", "fp16", "int8-weights")}

    def cache(self, precision: EnginePrecision, exported: Precision) -> Precision:
        return "fp16" if precision == "int8-weights" else super().cache(precision, exported)


def examples(count: int = 160) -> list[Example]:
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 40, rng.integers(3, 9)).astype(str).tolist() for _ in range(count)]
    return [Example(f"u{i}", tuple(history), (label,)) for i, (*history, label) in enumerate(drawn)]


def ordered(bundle: Path, draft: EnginePrecision = "int8-weights") -> Order:
    return Order.check(Bundle.open(bundle), Compiled("cpu"), "int8-weights", draft, 1)


def test_an_engine_of_integer_weights(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.calib.gate.MOST_LOST", 1.0)  # hits of random weights are noise
    recorded: list[int] = []
    original = Int8Build.record

    def watched(build: Int8Build) -> None:
        original(build)
        recorded.append(len(build.calls["target"].searches))

    monkeypatch.setattr(Int8Build, "record", watched)
    folder = build_int8(ordered(bundle), examples(), Int8Options(calibration_size=60))
    assert folder.name == NAME
    assert recorded == [SEARCHES]  # no ranges: what divergence takes
    assert not list(folder.glob("*-ranges.json"))
    facts = Bundle.open(bundle).engine_facts(NAME)
    assert facts.gate is not None
    assert facts.gate.users == 100
    for role in facts.roles.values():
        assert (role.precision, role.cache) == ("int8-weights", "fp16")
        assert role.quantization is not None
        tried = {trial.method: trial for trial in role.quantization.trials}
        assert list(tried) == ["weight8", "weight4"]
        assert tried["weight8"].divergence < tried["weight4"].divergence
        assert not tried["weight8"].milliseconds  # it would run elsewhere
        assert (role.quantization.method, role.quantization.smooth, role.quantization.ranges) == ("weight8", None, None)
    assert facts.drafting is not None
    told = describe(bundle)
    assert "target: weight8, weights alone; tried (divergence in nats):" in told
    assert "gate passed on 100 requests" in told


def test_the_gate_names_the_precision(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specbeam.calib.gate.LEAST_OVERLAP", 1.01)
    options = Int8Options(method="weight4", calibration_size=10, gate_size=20)
    with pytest.raises(EngineError, match=r"The int8-weights target \(weight4\) is not built: .*\. Compare on more"):
        build_int8(ordered(bundle, "fp32"), examples(), options)
    assert not (bundle / "engines" / f"{NAME}-draft-fp32").exists()


@pytest.mark.parametrize(("targets", "ways"), [(("8.6",), ["weight8", "weight4"]), (("7.5", "8.6"), ["weight8"])])
def test_4_bits_are_tried_where_all_targets_have_them(tiny: Tiny, targets: tuple[str, ...], ways: list[str]) -> None:
    backend = TensorRTBackend("cuda", options=TrtOptions(compute_capabilities=targets), flavour=RTX)
    order = Order(Bundle.open(tiny.bundle), backend, {"target": "int8-weights", "draft": "fp16"}, 1)
    assert list(offered(order, "target")) == ways


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "static"}, "onnxruntime backend takes int8-weights by weight8, weight4; got static"),
        ({"estimator": "minmax"}, "got estimator for int8-weights; expected none of them"),
        ({"smooth": 0.5, "percentile": 99.0}, "got percentile, smooth for int8-weights"),
        ({"keep": ("tail",)}, "got the parts tail to keep"),
    ],
)  # fmt: skip
def test_what_says_nothing_of_weights_is_refused(tiny: Tiny, options: dict[str, Any], message: str) -> None:
    order = ordered(tiny.bundle)
    with pytest.raises(OptionError, match=message):
        build_int8(order, examples(), Int8Options(**options))
    assert not order.folder.exists()


def test_ranges_and_no_histories_are_refused(tiny: Tiny) -> None:
    with pytest.raises(OptionError, match="got ranges for int8-weights"):
        build_int8(ordered(tiny.bundle), examples(), ranges=tiny.bundle)
    with pytest.raises(OptionError, match=r"int8-weights needs histories to compare rankings on: --calibration HIST"):
        build_engine(tiny.bundle, backend=Compiled("cpu"), precision="int8-weights")
