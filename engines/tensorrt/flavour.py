"""TensorRT's two flavours, and all that differs between them: TensorRT itself, and TensorRT for RTX."""

from collections.abc import Mapping

import msgspec

from ...catalog.checks import Checked
from ...catalog.errors import EngineError, OptionError
from ...catalog.files import Frozen
from ..bundle.facts import USUAL_TARGETS, EnginePrecision

Capability = str  # a GPU's compute capability, e.g. "8.6"


class Flavour(Frozen, frozen=True):
    """What a flavour is called, and what it can do."""

    backend: str  # the backend's name, and the extra's
    title: str  # what messages call it
    modules: tuple[str, ...]  # Python modules that run plans; the first one builds them as well
    precisions: tuple[EnginePrecision, ...]
    integers: tuple[str, ...]  # methods of `calib.quantize`
    # Compiled ahead of time, without a GPU, and finished by the one that loads it; otherwise built on the very kind of
    # GPU that it shall run on.
    ahead_of_time: bool
    targets: tuple[Capability, ...] = ()  # that plans may be compiled for
    usual: tuple[Capability, ...] = ()  # of these, what they are compiled for where nothing is said
    lacking: Mapping[Capability, tuple[str, ...]] = {}  # types that a target's kernels do not compute in

    def check_targets(self, asked: tuple[Capability, ...], precision: EnginePrecision, computed: str) -> None:
        """Raise `EngineError` for targets that a plan cannot be compiled for; computed: the type between integers."""
        unknown = [target for target in asked if target not in self.targets]
        if unknown:
            raise EngineError(
                f"{self.title} compiles for GPUs of compute capability {', '.join(self.targets)}; got "
                f"{', '.join(unknown)}. Leave that out, or build on such a GPU with --backend tensorrt."
            )
        for target in asked:
            if computed in self.lacking.get(target, ()):
                instead = "fp16" if computed != "fp16" else "fp32"
                raise EngineError(
                    f"GPUs of compute capability {target} have no kernels for {computed} products in {self.title}; got "
                    f"the precision {precision} (--precision or --draft-precision). Leave {target} out of "
                    f"--compute-capability, or build it in {instead}, from a bundle that was exported in fp32."
                )

    def integers_on(self, targets: tuple[Capability, ...]) -> tuple[str, ...]:
        """The methods whose integers all of these targets read."""
        lacking = {name for target in targets for name in self.lacking.get(target, ())}
        return tuple(way for way in self.integers if way != "weight4" or "int4" not in lacking)

    def check_options(self, options: Checked) -> None:
        """Raise `OptionError` for options that are the other flavour's."""
        given = msgspec.structs.asdict(options)
        for name, reason in (WHERE_IT_RUNS if self.ahead_of_time else AHEAD_OF_TIME).items():
            if given[name]:
                flag = "compute-capability" if name == "compute_capabilities" else name.replace("_", "-")
                raise OptionError(f"--{flag}: {reason}. Leave that out.")


# Options of plans that are built where they run, and of others, and why the other flavour refuses them.
WHERE_IT_RUNS = {
    "timing_cache": "TensorRT for RTX times no kernels, and a cache of timings would make it ask for a GPU",
    "version_compatible": "a plan of TensorRT for RTX runs on the very version that compiled it",
    "hardware_compatible": "TensorRT for RTX compiles for GPUs by their --compute-capability",
}
AHEAD_OF_TIME = {"compute_capabilities": "TensorRT builds for the GPU at hand; --backend tensorrt-rtx compiles for any"}

TENSORRT = Flavour(
    backend="tensorrt", title="TensorRT", modules=("tensorrt", "tensorrt_lean"),
    precisions=("fp32", "fp16", "bf16", "int8"), integers=("static",), ahead_of_time=False,
)  # fmt: skip
# Targets: "CPU-Only AOT and TensorRT-RTX Engines" of its documentation, whose default runs on 8.0, 8.6, 8.9, 12.0 and
# later; 7.5 has to be asked for. What 7.5 lacks: its compiler's own word (tests/engines/tensorrt/test_compiler.py).
RTX = Flavour(
    backend="tensorrt-rtx", title="TensorRT for RTX", modules=("tensorrt_rtx",),
    precisions=("fp32", "fp16", "bf16", "int8-weights"), integers=("weight8", "weight4"), ahead_of_time=True,
    targets=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"), usual=USUAL_TARGETS,
    lacking={"7.5": ("fp32", "bf16", "int4")},
)  # fmt: skip
FLAVOURS: Mapping[str, Flavour] = {flavour.backend: flavour for flavour in (TENSORRT, RTX)}
