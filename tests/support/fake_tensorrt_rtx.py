"""A stand-in for the module `tensorrt_rtx`: what fake_tensorrt.py has, and what TensorRT for RTX has besides.

Its plans say what they were compiled for; its runtime looks at that when it is asked whether they are valid, and has a
cache of compiled kernels. test_rtx_conformance.py holds it against the genuine module.
"""

import json
from enum import Enum, IntEnum
from typing import ClassVar

import fake_tensorrt
from fake_tensorrt import (
    BuilderFlag,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    IAttentionOutputLayer,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IProgressMonitor,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ProfilingVerbosity,
    TensorIOMode,
    init_libnvinfer_plugins,
)

__version__ = "1.7.1.116"
__all__ = [
    "BuilderFlag", "ExecutionContextAllocationStrategy", "HardwareCompatibilityLevel", "IAttentionOutputLayer",
    "ILogger", "INetworkDefinition", "IProgressMonitor", "LayerType", "MemoryPoolType", "NetworkDefinitionCreationFlag",
    "OnnxParser", "ProfilingVerbosity", "TensorIOMode", "init_libnvinfer_plugins",
]  # fmt: skip
USUAL = ["SM80", "SM86", "SM89", "SM120"]
HERE = "SM86"  # the GPU's
KERNELS = b"kernels of SM86"

ComputeCapability = Enum("ComputeCapability", ["SM75", "SM80", "SM86", "SM89", "SM120", "SM121"])
EngineValidity = Enum("EngineValidity", ["VALID", "SUBOPTIMAL", "INVALID"])
EngineInvalidityDiagnostics = IntEnum(
    "EngineInvalidityDiagnostics",
    {
        "VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "OLD_CUDA_RUNTIME": 8,
        "INSUFFICIENT_GPU_MEMORY": 16, "MALFORMED_ENGINE": 32, "CUDA_ERROR": 64,
    },
)  # fmt: skip


class IBuilderConfig(fake_tensorrt.IBuilderConfig):
    num_compute_capabilities = 0

    def __init__(self):
        super().__init__()
        self._targets = {}

    def set_compute_capability(self, compute_capability, index):
        assert index < self.num_compute_capabilities
        self._targets[index] = compute_capability.name
        return True

    def create_timing_cache(self, serialized_timing_cache):
        raise AssertionError("a timing cache makes the compiler ask for a GPU")


class Builder(fake_tensorrt.Builder):
    def create_builder_config(self):
        return IBuilderConfig()

    def _more(self, config):
        return {"targets": [config._targets[i] for i in range(config.num_compute_capabilities)] or USUAL}


class IRuntimeCache:
    loaded: ClassVar = []

    def __init__(self):
        self._content = b""

    def deserialize(self, blob):
        IRuntimeCache.loaded.append(bytes(blob))
        self._content = bytes(blob) if bytes(blob) == KERNELS else b""
        return bool(self._content)

    def serialize(self):
        return IHostMemory(self._content or KERNELS)


class IRuntimeConfig:
    def __init__(self):
        self._cache = self._strategy = None

    def create_runtime_cache(self):
        return IRuntimeCache()

    def set_runtime_cache(self, cache):
        self._cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy):
        self._strategy = strategy


class ICudaEngine(fake_tensorrt.ICudaEngine):
    def create_runtime_config(self):
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config):
        assert runtime_config._cache is not None
        assert runtime_config._strategy is ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        return super().create_execution_context(runtime_config._strategy)


class Runtime(fake_tensorrt.Runtime):
    _kind = ICudaEngine
    engine_header_size = 1 << 30  # its plans are JSON, which is whole or nothing

    def get_engine_validity(self, buffer):
        try:
            content = json.loads(bytes(buffer))
        except ValueError:
            return EngineValidity.INVALID, int(EngineInvalidityDiagnostics.MALFORMED_ENGINE)
        if HERE in content["targets"]:
            return EngineValidity.VALID, 0
        return EngineValidity.INVALID, int(EngineInvalidityDiagnostics.UNSUPPORTED_CC)
