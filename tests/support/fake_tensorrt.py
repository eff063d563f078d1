"""A stand-in for the module `tensorrt` that runs graphs in ONNX Runtime, on the memory that fake_cuda.py hands out.

It has the classes, methods and arguments that SpecBeam and Polygraphy use, and no others: what is not here
raises AttributeError. test_trt_conformance.py proves that the genuine modules have all of it. A call is
refused as TensorRT would: shapes outside the profile, addresses that are missing, misaligned, shared.
"""

import ctypes
import json
from base64 import b64decode, b64encode
from enum import Enum
from math import prod
from pathlib import Path
from threading import Lock

import numpy as np
import onnx
import onnxruntime
from polygraphy import cuda

__version__ = "10.16.1.11"
_ON_CPU = ["CPUExecutionProvider"]


class Fault:
    """What goes wrong next; see `reset`."""

    builder: str | None = None  # no builder, for this reason
    parser: tuple[tuple[str, str, str], ...] = ()  # operator, node, description
    build: str | None = None  # no plan, for this reason
    load: str | None = None  # no engine, for this reason
    execute: bool = False  # calls fail

    @classmethod
    def reset(cls) -> None:
        cls.builder = cls.build = cls.load = None
        cls.parser, cls.execute = (), False


NetworkDefinitionCreationFlag = Enum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
NetworkDefinitionCreationFlag.__int__ = lambda self: self.value
BuilderFlag = Enum("BuilderFlag", ["TF32", "VERSION_COMPATIBLE"])
DeviceType = Enum("DeviceType", ["GPU", "DLA"])
ExecutionContextAllocationStrategy = Enum("ExecutionContextAllocationStrategy", ["STATIC", "ON_PROFILE_CHANGE"])
HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
LayerType = Enum("LayerType", ["SHAPE", "ATTENTION_OUTPUT"])
MemoryPoolType = Enum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
TensorIOMode = Enum("TensorIOMode", ["INPUT", "OUTPUT"])


class ILogger:
    Severity = Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity, msg): ...


class IProgressMonitor:
    def phase_start(self, phase_name, parent_phase, num_steps): ...

    def step_complete(self, phase_name, step): ...

    def phase_finish(self, phase_name): ...


class ITensor:
    def __init__(self, value):
        self.name = value.name
        axes = value.type.tensor_type.shape.dim
        self.shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes)
        self.is_shape_tensor, self.dtype = False, value.type.tensor_type.elem_type


class INetworkDefinition:
    def __init__(self):
        self._graph, self._decomposable = None, 0

    @property
    def num_inputs(self):
        return len(self._graph.input)

    def get_input(self, index):
        return ITensor(self._graph.input[index])

    def get_flag(self, flag):
        return flag is NetworkDefinitionCreationFlag.STRONGLY_TYPED

    @property
    def num_layers(self):
        return sum(node.op_type == "Attention" for node in self._graph.node)

    def get_layer(self, index):
        return ILayer(self)


class ILayer:
    type = LayerType.ATTENTION_OUTPUT

    def __init__(self, network):
        self._network = network


class IAttentionOutputLayer(ILayer):
    @property
    def attention(self):
        return IAttention(self._network)


class IAttention:
    def __init__(self, network):
        self._network = network

    @property
    def decomposable(self):
        return False

    @decomposable.setter
    def decomposable(self, value):
        self._network._decomposable += bool(value)


class ParserError:
    def __init__(self, operator, name, description):
        self._operator, self._name, self._description = operator, name, description

    def node_operator(self):
        return self._operator

    def node_name(self):
        return self._name

    def desc(self):
        return self._description


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self.num_errors = network, len(Fault.parser)

    def parse_from_file(self, model):
        self._network._graph, self._network._path = onnx.load(model, load_external_data=False).graph, model
        return not Fault.parser

    def get_error(self, index):
        return ParserError(*Fault.parser[index])


class IOptimizationProfile:
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        if not len(min) == len(opt) == len(max) or any(
            not 0 <= a <= b <= c for a, b, c in zip(min, opt, max, strict=True)
        ):
            raise ValueError(f"inconsistent shapes for {input}")
        self._shapes[input] = (min, opt, max)


class ITimingCache:
    def __init__(self, data):
        self._data = data

    def combine(self, input_cache, ignore_mismatch):
        self._data += input_cache._data
        return True

    def serialize(self):
        return IHostMemory(self._data + b"timed;")


class IHostMemory(bytes):
    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback): ...


class IBuilderConfig:
    DLA_core, default_device_type, progress_monitor = -1, DeviceType.GPU, None
    hardware_compatibility_level = HardwareCompatibilityLevel.NONE
    profiling_verbosity = ProfilingVerbosity.DETAILED

    def __init__(self):
        self._profiles, self._flags, self._pools, self._cache = [], {BuilderFlag.TF32}, {}, None

    @property
    def num_optimization_profiles(self):
        return len(self._profiles)

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)

    def set_flag(self, flag):
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def get_flag(self, flag):
        return flag in self._flags

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool.name] = pool_size

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class Builder:
    def __init__(self, logger):
        if Fault.builder:
            logger.log(ILogger.ERROR, Fault.builder)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags=0):
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        monitor.phase_start("Timing", "Building", 3)
        goes_on = monitor.step_complete("Timing", 0)
        monitor.phase_start("Tactics", "Timing", 7)
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Timing")
        monitor.phase_finish("Building")
        if Fault.build or not goes_on:
            self._logger.log(ILogger.ERROR, Fault.build or "stopped")
            return None
        content = {
            "graph": b64encode(Path(network._path).read_bytes()).decode(),
            "profiles": [profile._shapes for profile in config._profiles],
            "flags": sorted(flag.name for flag in config._flags),
            "pools": config._pools,
            "hardware": config.hardware_compatibility_level.name,
            "decomposable": network._decomposable,
            **self._more(config),
        }
        return IHostMemory(json.dumps(content).encode())

    def _more(self, config):
        """What a flavour puts into its plans besides."""
        return {}


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        content = json.loads(serialized_engine)
        if Fault.load or ("VERSION_COMPATIBLE" in content["flags"] and not self.engine_host_code_allowed):
            self._logger.log(ILogger.ERROR, Fault.load or "host code is not allowed")
            return None
        return self._kind(content)


class ICudaEngine:
    def __init__(self, content):
        self._profiles = content["profiles"]
        self._session = onnxruntime.InferenceSession(b64decode(content["graph"]), providers=_ON_CPU)
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        self.num_io_tensors = len(self._inputs + self._outputs)
        self.num_optimization_profiles = len(self._profiles)

    def get_tensor_name(self, index):
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name, profile_index):
        return self._profiles[profile_index][name]

    def create_execution_context(self, strategy):
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._profile, self._shapes, self._addresses = engine, None, {}, {}
        self._busy = Lock()
        self._calls = 0

    def set_optimization_profile_async(self, profile_index, stream_handle):
        assert stream_handle
        self._profile = profile_index
        return True

    def set_input_shape(self, name, shape):
        least, _, most = self._engine._profiles[self._profile][name]
        self._shapes[name] = shape
        return len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return memory > 0 and memory % 256 == 0

    def execute_async_v3(self, stream_handle):
        assert stream_handle
        assert self._busy.acquire(blocking=False), "two threads in one context"
        session = self._engine._session
        if Fault.execute:
            self._busy.release()
            return False
        inputs = {
            value.name: _view(self._addresses[value.name], self._shapes[value.name], _TYPES[value.type])
            for value in session.get_inputs()
        }
        outputs = session.run(self._engine._outputs, inputs)
        used = list(inputs.values())
        for name, output in zip(self._engine._outputs, outputs, strict=True):
            place = _view(self._addresses[name], output.shape, output.dtype)
            assert not any(np.may_share_memory(place, other) for other in used), (
                f"{name} is written over another tensor"
            )
            used.append(place)
            place[:] = output
        self._calls += 1
        self._busy.release()
        return True


Runtime._kind = ICudaEngine
_TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(float16)": np.float16}


def _view(address, shape, dtype):
    size = prod(shape) * np.dtype(dtype).itemsize
    assert cuda.wrapper().handle.fake_inside(ctypes.c_void_p(address), ctypes.c_size_t(size)), "outside of the memory"
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)


def init_libnvinfer_plugins(logger, namespace):
    return True


def content(plan: Path) -> dict:
    """What a plan holds."""
    return json.loads(plan.read_bytes())
