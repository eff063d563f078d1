"""Building TensorRT plans: an ONNX graph, profiles and options to one file, through Polygraphy."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any

from ...catalog.checks import Checked
from ...catalog.errors import EngineError
from ...catalog.files import whole_file
from ..bundle.facts import Limits, ModelFacts, Precision, TensorRTFacts
from ..cuda import Device, quiet
from .library import Messages, import_tensorrt, new_logger, new_tool
from .profiles import Profile, check_memory, check_profiles

Progress = Callable[[str, int, int], None]  # what is done now, steps done, steps in all
DEPTH = 2  # TensorRT's phases are nested; deeper ones come and go too fast to be read


class TrtOptions(Checked, frozen=True):
    """How a plan is built."""

    workspace: int | None = None  # most bytes of scratch memory a layer may take; None: all of the GPU's
    timing_cache: str | None = None  # file that keeps how fast kernels were; written, too
    version_compatible: bool = False  # later versions of TensorRT and its lean runtime can run the plan; slower
    hardware_compatible: bool = False  # other GPUs, from Ampere on, can run the plan; slower


def build_plan(
    graph: Path,
    plan: Path,
    facts: ModelFacts,
    profiles: Sequence[Profile],
    *,
    limits: Limits,
    identifier_length: int,
    cache: Precision,
    options: TrtOptions,
    progress: Progress = lambda what, done, total: None,
) -> TensorRTFacts:
    """Build `graph` (index inputs, weights as they shall be computed) for the current GPU; write `plan`, whole or not.

    The network is strongly typed: its precision is the graph's, INT8 where it has Q/DQ nodes (TensorRT 10
    and 11 alike). cache: the type of keys and values. Raises `EngineError`, before the builder runs for
    profiles that do not fit the graph, for a missing library or GPU; after it with TensorRT's reason and
    the limit to lower.
    """
    inputs = graph_inputs(graph)
    check_profiles(profiles, facts, limits, inputs, identifier_length=identifier_length, cache=cache)
    trt = import_tensorrt()
    with closing(Device()) as device:
        capability, memory = device.compute_capability(), device.memory()
    check_memory(facts, limits, identifier_length=identifier_length, cache=cache, total=memory)
    data = _build(trt, graph, profiles, options, progress)
    with whole_file(plan, replace=True) as file:
        file.write(data)
    return TensorRTFacts(
        version=trt.__version__,
        compute_capability=capability,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        limits=limits,
        profiles=tuple(profile.name for profile in profiles),
    )


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


def _build(trt: Any, graph: Path, profiles: Sequence[Profile], options: TrtOptions, progress: Progress) -> Any:
    """The plan's bytes (TensorRT's `IHostMemory`)."""
    from polygraphy.exception import PolygraphyException  # type: ignore[import-untyped]

    messages = Messages()
    network = _network(trt, graph, new_logger(trt, messages), messages)
    monitor = new_monitor(trt, progress)
    try:
        return _serialize(network, _config(trt, profiles, options, monitor), options)
    except (PolygraphyException, ValueError, OSError) as error:
        monitor.raise_interruption()
        raise _failure(trt, messages, error) from error


def _serialize(network: tuple[Any, Any, Any], config: Any, options: TrtOptions) -> Any:
    """Run the builder. Polygraphy prints, and saves the timing cache by means that TensorRT has deprecated."""
    from polygraphy.backend.trt import engine_bytes_from_network  # type: ignore[import-untyped]

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return engine_bytes_from_network(network, config=config, save_timing_cache=options.timing_cache)


def _network(trt: Any, graph: Path, logger: Any, messages: Messages) -> tuple[Any, Any, Any]:
    """Builder, parsed network and parser: what Polygraphy's loader does, but with every error that the parser found."""
    builder = new_tool(trt.Builder, logger, messages)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    trt.init_libnvinfer_plugins(logger, "")
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        listed = "\n".join(f"- {e.node_operator() or 'graph'} {e.node_name()}: {e.desc()}" for e in found)
        raise EngineError(
            f"TensorRT {trt.__version__} cannot import {graph}:\n{listed or messages.last()}\n"
            "See what it would need: specbeam inspect BUNDLE --check tensorrt"
        )
    return builder, network, parser


def _config(trt: Any, profiles: Sequence[Profile], options: TrtOptions, monitor: Any) -> Any:
    """Polygraphy's loader of a builder configuration."""
    from polygraphy.backend.trt import CreateConfig
    from polygraphy.backend.trt import Profile as TrtProfile

    ranges = []
    for profile in profiles:
        ranges.append(TrtProfile())
        for name, (least, typical, most) in profile.shapes.items():
            ranges[-1].add(name, min=least, opt=typical, max=most)
    cached = options.timing_cache is not None and Path(options.timing_cache).is_file()
    everywhere = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    with quiet():
        return CreateConfig(
            profiles=ranges,
            load_timing_cache=options.timing_cache if cached else None,
            memory_pool_limits=options.workspace and {trt.MemoryPoolType.WORKSPACE: options.workspace},
            version_compatible=options.version_compatible,
            hardware_compatibility_level=everywhere if options.hardware_compatible else None,
            profiling_verbosity=trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
            progress_monitor=monitor,
        )


def new_monitor(trt: Any, progress: Progress) -> Any:
    """A progress monitor that tells `progress` the outer phases; what that raises stops the build.

    TensorRT calls it from several threads.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock, self._phases = Lock(), dict[str, tuple[int, int]]()  # name: depth, steps
            self._interruption: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                depth = self._phases.get(parent_phase or "", (0, 0))[0] + 1
                self._phases[phase_name] = depth, num_steps
                self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._tell(phase_name, step + 1)
                return self._interruption is None

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._tell(phase_name, self._phases[phase_name][1])
                del self._phases[phase_name]

        def raise_interruption(self) -> None:
            if self._interruption is not None:
                raise self._interruption

        def _tell(self, phase: str, done: int) -> None:
            depth, steps = self._phases[phase]
            if depth <= DEPTH and self._interruption is None:
                try:
                    progress(phase, done, steps)
                except BaseException as error:  # an exception must not pass through TensorRT's own code
                    self._interruption = error

    return Monitor()


def _failure(trt: Any, messages: Messages, error: Exception) -> EngineError:
    """What to do about a build that failed."""
    if messages.out_of_memory():
        return EngineError(
            f"TensorRT {trt.__version__} ran out of memory while it built: {messages.last()}. Lower --workspace, "
            "--max-batch or --max-nodes, or close what else uses the GPU."
        )
    reason = messages.last(otherwise=str(error))
    return EngineError(
        f"TensorRT {trt.__version__} could not build the plan: {reason}. If no kernel fitted, raise --workspace or "
        "lower --max-batch or --max-nodes."
    )
