"""TensorRT as a backend, in both flavours: a graph becomes a plan for GPUs and for a range of calls."""

from functools import partial
from pathlib import Path
from typing import ClassVar, final

from ...catalog.checks import Checked
from ..backend import Backend, GraphToBuild, Progress, WeightForm
from ..base import Engine
from ..bundle.facts import ENCODER, EnginePrecision, Limits, Precision, Role, RoleFacts, TensorRTFacts
from ..bundle.items import Bundle, of_items
from ..bundle.measured import kept_kernels
from ..bundle.model import ModelBundle
from ..prepare import prepare_graph
from .build import Kind, TrtOptions, build_plan
from .flavour import TENSORRT, Capability, Flavour
from .layers import ENCODER_PLAN, PLAN
from .profiles import profiles_for, reading_profile


class CallSizes(Checked, frozen=True):
    """The largest calls to build for; see `Limits`."""

    max_batch: int = 8
    max_prompt: int | None = None  # None: the longest prompt that a full history makes
    max_nodes: int = 256


@final
class TensorRTBackend(Backend):
    """TensorRT 10.14 or later, 11 included, on the current NVIDIA GPU; or TensorRT for RTX, for GPUs to come."""

    zero_points: ClassVar[bool] = False
    weights: ClassVar[WeightForm] = "dequantize"

    def __init__(
        self, device: str, sizes: CallSizes | None = None, options: TrtOptions | None = None,
        flavour: Flavour = TENSORRT,
    ) -> None:  # fmt: skip
        super().__init__(device)
        self.flavour, self._sizes, self._options = flavour, sizes or CallSizes(), options or TrtOptions()
        flavour.check_options(self._options)
        self.name, self.integers = flavour.backend, flavour.integers_on(self._targets)

    @property
    def precisions(self) -> tuple[EnginePrecision, ...]:
        return self.flavour.precisions

    @property
    def runs_here(self) -> bool:
        return not self.flavour.ahead_of_time

    def why_not(self, method: str) -> str | None:
        if method in self.flavour.integers and method not in self.integers:
            lacking = [target for target in self._targets if "int4" in self.flavour.lacking.get(target, ())]
            return f"GPUs of compute capability {', '.join(lacking)} have no int4"
        return None

    def check(self, precision: EnginePrecision) -> None:
        super().check(precision)
        self.flavour.check_targets(self._targets, precision, self.cache(precision, "fp32"))

    @property
    def _targets(self) -> tuple[Capability, ...]:
        return self._options.compute_capabilities or self.flavour.usual

    def ready(self) -> None:
        self.versions()
        if not self.flavour.ahead_of_time:
            from ..cuda import Device

            Device().close()

    def versions(self) -> dict[str, str]:
        from .library import import_tensorrt

        return {self.name: str(import_tensorrt(self.flavour).__version__)}

    def cache(self, precision: EnginePrecision, exported: Precision) -> Precision:
        """Integers stand between half-precision tensors: what is not quantized is fast, too."""
        if precision == "int8" or precision == "int8-weights":
            return "fp16" if exported == "fp32" else exported
        return precision

    def limits(self, bundle: ModelBundle) -> Limits:
        return limits_of(of_items(bundle, "TensorRT engine"), self._sizes)

    def build(self, graph: GraphToBuild, progress: Progress) -> TensorRTFacts | None:
        facts, limits, length = (
            graph.bundle.facts(graph.role),
            self.limits(graph.bundle),
            graph.bundle.manifest.tree_path,
        )
        decoder = self._prepared(graph, graph.source, limits.path, progress)
        build = partial(
            build_plan, facts=facts, limits=limits, identifier_length=length, options=self._options,
            kind=Kind(self.flavour, graph.precision, graph.cache),
            progress=lambda what, done, total: progress(f"building {graph.role}: {what}", done, total),
        )  # fmt: skip
        built = build(decoder, graph.folder / PLAN, profiles=profiles_for(graph.role, facts, limits, length))
        if facts.encoder is not None:
            encoder = self._prepared(graph, graph.source.with_name(ENCODER), None, progress)
            build(encoder, graph.folder / ENCODER_PLAN, profiles=(reading_profile(limits),))
        return built

    def _prepared(self, graph: GraphToBuild, source: Path, path: int | None, progress: Progress) -> Path:
        """A graph as the parser gets it; path: slots that a token may name, where it sees any."""
        progress(f"converting {graph.role}", 0, 1)
        return prepare_graph(
            source, graph.scratch / graph.role / source.name, exported=graph.bundle.manifest.precision,
            wanted=graph.cache, mask_slots=path, decomposed=True,
        )  # fmt: skip

    def load(
        self, bundle: ModelBundle, role: Role, folder: Path, facts: RoleFacts, threads: int, rebuild: str,
        *, catalog_head: bool = False, thrifty: bool = False,
    ) -> Engine:  # fmt: skip
        from .load import load_trt_engine

        assert facts.tensorrt is not None
        return load_trt_engine(
            folder / PLAN, bundle.facts(role), facts.tensorrt, self.flavour, columns=bundle.manifest.columns,
            cache_precision=facts.cache, rebuild=rebuild, kernels=self._kernels(bundle, role, folder.parent),
        )  # fmt: skip

    def _kernels(self, bundle: ModelBundle, role: Role, engine: Path) -> bytes | None:
        if not self.flavour.ahead_of_time:
            return None
        return kept_kernels(engine, bundle.built_facts(engine.name), role, bundle.finishing(engine.name))


def limits_of(bundle: Bundle, sizes: CallSizes) -> Limits:
    """What a bundle's engines are built for, where `sizes` leaves it open."""
    manifest, prompt = bundle.manifest, bundle.manifest.prompt
    item = manifest.identifier_length - (manifest.end_token is not None) + len(prompt.separator_ids)
    full = len(prompt.prefix_ids) + len(prompt.suffix_ids) + prompt.history_length * item
    return Limits(
        max_batch=sizes.max_batch, max_prompt=sizes.max_prompt or min(full, manifest.max_prompt_tokens),
        max_nodes=sizes.max_nodes, path=manifest.identifier_length,
    )  # fmt: skip
