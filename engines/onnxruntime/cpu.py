"""ONNX Runtime: how any of its engines is opened, on the CPU or on a device."""

from pathlib import Path

import onnxruntime as ort  # type: ignore[import-untyped]

from ...catalog.errors import EngineError
from ...catalog.extras import install
from ..bundle.facts import CONSTRAINED, ENCODER, ModelFacts, Precision
from ..contract import check_encoder, check_gather, check_model
from .dense import OrtEngine
from .device import GATHER, DeviceEngine
from .device_encoder_decoder import DeviceEncoderDecoder
from .encoder_decoder import EncoderDecoderEngine
from .threads import REFUSED, threads_are_shared

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
DENSE = ("fp32", "fp16")  # caches that NumPy can hold, which lacks bfloat16


def session_options(threads: int, *, thrifty: bool = False) -> ort.SessionOptions:
    """Options of every session: `threads` of its own, unless all share theirs; warnings to nobody; thrifty: no arena,
    which would keep what its largest calls took, and whole pieces of it for the sake of a cache that lies in one."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = not thrifty
    if threads_are_shared():
        options.use_per_session_threads = False
        return options
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Two engines take turns in one process: a pool that spins after its call takes the other's processors.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def check_provider(device: str) -> str:
    """ONNX Runtime's name of what runs graphs on a device; raises `EngineError` where this installation has none."""
    if device not in PROVIDERS:
        raise EngineError(f"The onnxruntime backend has no device {device!r}; expected one of: {', '.join(PROVIDERS)}.")
    provider = PROVIDERS[device]
    if provider not in ort.get_available_providers():
        available = ", ".join(ort.get_available_providers())
        raise EngineError(
            f"ONNX Runtime {ort.__version__} here has no {provider}; it has {available}. "
            f"Run: {install('gpu' if device == 'cuda' else 'cpu')}, or choose another device."
        )
    return provider


def open_session(
    graph: Path, device: str, options: ort.SessionOptions, *, cuda_graphs: bool = False
) -> ort.InferenceSession:
    """Load a graph on one device, on CUDA so that its runs can be captured if asked.

    Raises `EngineError` where this machine's ONNX Runtime cannot.
    """
    provider = check_provider(device)
    settings = {"enable_cuda_graph": "1"} if cuda_graphs else {}
    try:
        # Without a fallback: that would be another engine, and is told of on standard output.
        session = ort.InferenceSession(str(graph), options, providers=[(provider, settings)], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        if REFUSED in str(error):
            raise EngineError(
                "This process has one pool of threads for all its ONNX Runtime sessions, made by somebody else. To let "
                "engines use it, call share_threads(None) of specbeam.engines.onnxruntime.threads before any is opened."
            ) from error
        raise EngineError(
            f"ONNX Runtime {ort.__version__} cannot load {graph} on {device}: {error}. If it was made elsewhere, or "
            "changed since: build the engine again, or export again if it is the bundle's own graph."
        ) from error
    if provider not in session.get_providers():  # its libraries are missing: only a log line says so
        raise EngineError(
            f"ONNX Runtime {ort.__version__} could not start its {provider} for {graph}. Check the device's driver and "
            "libraries, or choose another engine."
        )
    return session


def load_ort_engine(
    graph: Path,
    facts: ModelFacts,
    *,
    device: str,
    precision: Precision,
    threads: int,
    columns: int | None = None,
    cuda_graphs: bool = True,
    thrifty: bool = False,
    packed: bool = True,
) -> OrtEngine | EncoderDecoderEngine | DeviceEngine | DeviceEncoderDecoder:
    """An engine over a graph that was optimised when it was built; it is loaded as it is.

    Where a gather graph lies beside it (`GATHER`), the graph has index inputs, and its caches stay on the
    device. precision: of the cache. columns: of log-probabilities (default: any number).
    cuda_graphs: on CUDA, capture what comes again (where ONNX Runtime can). thrifty: on the CPU, see `session_options`.
    packed: whether weights are laid out once more, in memory of their own, as kernels read them fastest; otherwise they
    stay in their file, mapped: enough for a few calls.
    Raises `EngineError` where this machine's ONNX Runtime cannot load it, and, without a gather graph, on
    CUDA and for bfloat16: such caches pass through NumPy.
    """
    options = session_options(threads, thrifty=thrifty)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    gather = graph.with_name(GATHER)
    if gather.is_file():
        capture = cuda_graphs and device == "cuda"
        return _load_device_engine(graph, gather, facts, device, precision, options, columns, capture)
    if device != "cpu" or precision not in DENSE:
        raise EngineError(
            f"Without {GATHER} beside it, {graph} runs on cpu in {' or '.join(DENSE)}; got {device} and {precision}. "
            "Build the engine again."
        )
    session = open_session(graph, device, options)
    check_model(session, graph, facts, precision, columns, dense=True)
    engine = OrtEngine(session, facts, precision, catalog_head=graph.name == CONSTRAINED)
    if facts.encoder is None:
        return engine
    encoder = graph.with_name(ENCODER)
    reader = open_session(encoder, device, options)
    check_encoder(reader, encoder, facts, precision)
    return EncoderDecoderEngine(reader, engine, facts)


def _load_device_engine(
    graph: Path,
    gather: Path,
    facts: ModelFacts,
    device: str,
    precision: Precision,
    options: ort.SessionOptions,
    columns: int | None,
    cuda_graphs: bool,
) -> DeviceEngine | DeviceEncoderDecoder:
    files = [graph, gather, *([] if facts.encoder is None else [graph.with_name(ENCODER)])]
    try:
        model, keeper, *reader = [open_session(one, device, options, cuda_graphs=cuda_graphs) for one in files]
    except EngineError:
        if not cuda_graphs:
            raise
        cuda_graphs = False  # refused where nodes are not on the GPU
        model, keeper, *reader = [open_session(one, device, options) for one in files]
    check_model(model, graph, facts, precision, columns, dense=False)
    check_gather(keeper, gather, facts, precision)
    engine = DeviceEngine(model, keeper, facts, precision, device, cuda_graphs=cuda_graphs)
    if facts.encoder is None:
        return engine
    check_encoder(reader[0], graph.with_name(ENCODER), facts, precision)
    return DeviceEncoderDecoder(reader[0], engine, facts, device, cuda_graphs=cuda_graphs)
