"""Building TensorRT plans, of either flavour: an ONNX graph, profiles and options to one file."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ...catalog.checks import Checked
from ...catalog.errors import EngineError
from ...catalog.files import whole_file
from ..bundle.facts import EnginePrecision, Limits, ModelFacts, Precision, TensorRTFacts
from ..cuda import Device
from .flavour import Capability, Flavour
from .layers import ENCODER_LAYERS, ENCODER_PLAN, LAYERS, Layer, layers_of_log, write_layers
from .library import Messages, import_tensorrt, new_logger, new_tool
from .monitor import Progress, new_monitor
from .profiles import Profile, check_memory, check_profiles


class TrtOptions(Checked, frozen=True):
    """How a plan is built."""

    workspace: int | None = None  # most bytes of scratch memory a layer may take; None: all of the GPU's
    timing_cache: str | None = None  # file that keeps how fast kernels were; written, too
    version_compatible: bool = False  # later versions of TensorRT and its lean runtime can run the plan; slower
    hardware_compatible: bool = False  # other GPUs, from Ampere on, can run the plan; slower
    # TensorRT for RTX: GPUs to compile for, e.g. ("8.6", "8.9"); (): those that its own default names
    compute_capabilities: tuple[Capability, ...] = ()


class Kind(NamedTuple):
    """What is built: by which flavour, and in which types."""

    flavour: Flavour
    precision: EnginePrecision  # as it was asked for
    cache: Precision  # of keys and values


def build_plan(
    graph: Path,
    plan: Path,
    facts: ModelFacts,
    profiles: Sequence[Profile],
    *,
    limits: Limits,
    identifier_length: int,
    kind: Kind,
    options: TrtOptions,
    progress: Progress = lambda what, done, total: None,
) -> TensorRTFacts:
    """Build `graph` (index inputs, weights as they shall be computed); write `plan`, whole or not, and its layers.json.

    For the current GPU; by TensorRT for RTX without one, for the GPUs in `options`. The network is strongly typed: its
    precision is the graph's, INT8 where it has Q/DQ nodes (TensorRT 10 and 11 alike). Raises `EngineError`, before the
    builder runs for profiles that do not fit the graph, for a missing library or GPU and for targets that cannot be;
    after it with TensorRT's reason and the limit to lower.
    """
    inputs, flavour = graph_inputs(graph), kind.flavour
    check_profiles(profiles, facts, limits, inputs, identifier_length=identifier_length, cache=kind.cache)
    targets = options.compute_capabilities or flavour.usual
    flavour.check_targets(targets, kind.precision, kind.cache)
    trt = import_tensorrt(flavour)
    capability: str | None = None
    if not flavour.ahead_of_time:
        with closing(Device()) as device:
            capability, memory = device.compute_capability(), device.memory()
        check_memory(facts, limits, identifier_length=identifier_length, cache=kind.cache, total=memory)
    data, layers = _build(trt, flavour, graph, profiles, options, progress)
    with whole_file(plan, replace=True) as file:
        file.write(data)
    write_layers(plan.parent, layers, ENCODER_LAYERS if plan.name == ENCODER_PLAN else LAYERS)
    return TensorRTFacts(
        version=trt.__version__, compute_capability=capability, compiled_for=targets,
        version_compatible=options.version_compatible, hardware_compatible=options.hardware_compatible, limits=limits,
        profiles=tuple(profile.name for profile in profiles),
    )  # fmt: skip


def graph_inputs(graph: Path) -> dict[str, tuple[int | str, ...]]:
    """Inputs of an ONNX file and their axes: sizes, or names where they are dynamic."""
    import onnx

    model = onnx.load(graph, load_external_data=False)
    return {
        given.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else axis.dim_param
            for axis in given.type.tensor_type.shape.dim
        )
        for given in model.graph.input
    }


def _build(
    trt: Any, flavour: Flavour, graph: Path, profiles: Sequence[Profile], options: TrtOptions, progress: Progress
) -> tuple[Any, tuple[Layer, ...]]:
    """The plan's bytes (TensorRT's `IHostMemory`), and what it was compiled to."""
    messages = Messages()
    builder, network, _parser = parsed = parse_graph(trt, flavour, graph, messages)
    monitor = new_monitor(trt, progress, messages)
    config = new_config(trt, builder, profiles, options, monitor)
    data = builder.build_serialized_network(network, config)
    monitor.raise_interruption()
    if data is None:
        raise _failure(trt, flavour, messages, options)
    if options.timing_cache is not None:
        _keep_timings(config, Path(options.timing_cache))
    del parsed  # the parser holds the weights that the network refers to
    return data, layers_of_log(messages.layers)


def parse_graph(trt: Any, flavour: Flavour, graph: Path, messages: Messages) -> tuple[Any, Any, Any]:
    """Builder, parsed network and parser; raises `EngineError` with every error that the parser found.

    Attention may be decomposed: where there is a fused kernel for it that changes nothing, and where there is none
    (float32; in TensorRT for RTX also heads narrower than 12 or wider than 256, and a single head) it would fail
    otherwise (NvInfer.h, `IAttention::setDecomposable`). What became of it: layers.json.
    """
    logger = new_logger(trt, messages)
    builder = new_tool(trt.Builder, logger, messages, flavour)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    trt.init_libnvinfer_plugins(logger, "")
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        listed = "\n".join(f"- {e.node_operator() or 'graph'} {e.node_name()}: {e.desc()}" for e in found)
        raise EngineError(
            f"{flavour.title} {trt.__version__} cannot import {graph}:\n{listed or messages.last()}\n"
            "See what it would need: specbeam inspect BUNDLE --check tensorrt"
        )
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.type == trt.LayerType.ATTENTION_OUTPUT:
            layer.__class__ = trt.IAttentionOutputLayer  # its Python API tells kinds of layers apart in this way alone
            layer.attention.decomposable = True
    return builder, network, parser


def new_config(trt: Any, builder: Any, profiles: Sequence[Profile], options: TrtOptions, monitor: Any) -> Any:
    """A builder configuration."""
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for layers.json; the plan is as large without it
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 says float32
    for profile in profiles:
        ranges = builder.create_optimization_profile()
        for name, (least, typical, most) in profile.shapes.items():
            ranges.set_shape(name, least, typical, most)
        config.add_optimization_profile(ranges)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.timing_cache is not None:
        file = Path(options.timing_cache)
        known = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
        if known is None:
            raise EngineError(f"{file} is no timing cache of this TensorRT. Give another --timing-cache, or remove it.")
        config.set_timing_cache(known, ignore_mismatch=False)
    if options.compute_capabilities:  # left out, it is the library's default, which runs on later GPUs as well
        config.num_compute_capabilities = len(options.compute_capabilities)
        for number, target in enumerate(options.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}"), number)
    return config


def _keep_timings(config: Any, file: Path) -> None:
    """Write the timings, with those that another build has written meanwhile."""
    timings = config.get_timing_cache()
    others = config.create_timing_cache(file.read_bytes()) if file.is_file() else None
    if others is not None:
        timings.combine(others, ignore_mismatch=True)
    with whole_file(file, replace=True) as kept:
        kept.write(timings.serialize())


def _failure(trt: Any, flavour: Flavour, messages: Messages, options: TrtOptions) -> EngineError:
    """What to do about a build that failed."""
    if messages.out_of_memory():
        given = None if options.workspace is None else options.workspace >> 20
        remedy = "Lower --max-batch, --max-prompt or --max-nodes, or close what else uses this machine's memory."
        if given is not None:
            remedy = f"--workspace gives a layer {given} MiB: raise it, or lower --max-batch or --max-nodes."
        return EngineError(
            f"{flavour.title} {trt.__version__} ran out of memory while it built: {messages.last()}. {remedy}"
        )
    return EngineError(
        f"{flavour.title} {trt.__version__} could not build the plan: {messages.last()}. If no kernel fitted, raise "
        "--workspace or lower --max-batch or --max-nodes."
    )
