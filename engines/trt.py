"""TensorRT: plans in execution contexts, their keys and values kept on the GPU, a buffer to read and one to write."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ..catalog.errors import EngineError
from .base import Engine, Float32, ForwardInputs, Int64, KVCache
from .device import Block, Device, Pool, aligned, packed, quiet
from .facts import ModelFacts, Precision
from .profiles import BYTES, Profile, TensorRTFacts, choose
from .trt_library import Messages, check_fits, import_tensorrt, new_logger, new_tool

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]


@dataclass(frozen=True)
class CacheLayout:
    """How keys and values lie in a block: part after part (a layer's keys, its values, ...), packed [B, heads, S, D].

    A part's begin depends on the batch alone, so that rows of all parts can be copied at once.
    """

    parts: int  # 2 x layers
    heads: int
    head_dim: int
    itemsize: int  # bytes of a number; what the numbers are does not matter here
    capacity: int  # most slots

    def row(self, length: int) -> int:
        """Bytes of one request's slots in one part."""
        return self.heads * length * self.head_dim * self.itemsize

    def pitch(self, batch: int) -> int:
        """Bytes from one part to the next."""
        return aligned(batch * self.row(self.capacity))

    def size(self, batch: int) -> int:
        """Bytes of a block."""
        return self.parts * self.pitch(batch)


class TrtCache(KVCache):
    """A block of the engine's pool; calls write into another one, so copies may share it."""

    def __init__(self, engine: "TrtEngine", batch: int) -> None:
        self._engine, self._batch, self._length = engine, batch, 0
        self.block: Block | None = None  # None: nothing cached yet

    @property
    def batch(self) -> int:
        return self._batch

    @property
    def length(self) -> int:
        return self._length

    def copy(self) -> "TrtCache":
        other = TrtCache(self._engine, self._batch)
        other.hold(self.block, self._batch, self._length)
        return other

    def keep(self, rows: Int64, slots: Int64 | None = None) -> None:
        self._engine.keep(self, rows, slots)

    def hold(self, block: Block | None, batch: int, length: int) -> None:
        """For the engine: the content from now on."""
        self.block, self._batch, self._length = block, batch, length


class TrtEngine(Engine):
    """A plan of a graph with index inputs; one execution context a profile, one stream, one call at a time."""

    def __init__(
        self,
        plan: "Plan",
        facts: ModelFacts,
        device: Device,
        *,
        columns: int,
        cache_precision: Precision,
        rebuild: str,
    ) -> None:
        """columns: C; rebuild: the command that errors name."""
        super().__init__(columns=columns)
        self._plan, self._device, self._pool, self._rebuild = plan, device, Pool(device), rebuild
        self._lock = Lock()
        # Caches hold the engine: none is left then. When the process ends, CUDA may have ended before.
        finalize(self, _give_back, self._pool, device).atexit = False
        capacity = max(profile.range("past")[2] for profile in plan.profiles) + 1
        self._layout = CacheLayout(2 * facts.layers, facts.kv_heads, facts.head_dim, BYTES[cache_precision], capacity)
        self._names = [f"{layer}.{part}" for layer in range(facts.layers) for part in ("key", "value")]
        self._path = plan.profiles[0].shapes["visible_slots"][0][2]

    def new_cache(self, batch: int) -> TrtCache:
        return TrtCache(self, batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        assert isinstance(cache, TrtCache)
        small = self._small(inputs)
        (batch, new), rows = inputs.input_ids.shape, small["logit_rows"].shape[1]
        profile = choose(self._plan.profiles, batch=batch, past=cache.length, new=new, rows=rows, rebuild=self._rebuild)
        with self._lock:
            logprobs = self._run(self._plan.contexts[profile], small, cache)
        return logprobs[:, : inputs.logit_rows.shape[1]]

    def keep(self, cache: TrtCache, rows: Int64, slots: Int64 | None) -> None:
        """`KVCache.keep`. Rows are copied on the GPU; choosing slots goes through the host (the runtime never does)."""
        if cache.block is None:
            cache.hold(None, len(rows), 0)
            return
        with self._lock:
            block = self._pool.take(self._layout.size(len(rows)))
            if slots is None:
                self._copy_rows(cache, block, rows)
                length = cache.length
            else:
                self._copy_slots(cache, block, rows, slots)
                length = slots.shape[1]
            cache.hold(block, len(rows), length)

    def _small(self, inputs: ForwardInputs) -> dict[str, NDArray[np.int64]]:
        """What is uploaded: `visible_slots` as wide as the graph's, at least one row of logits."""
        slots, rows = inputs.visible_slots, inputs.logit_rows
        width = slots.shape[2]
        if width > self._path:
            raise EngineError(
                f"A call lets a token see {width} slots besides the first ones, the engine was built for {self._path}. "
                f"Build it again: {self._rebuild}"
            )
        return {
            "input_ids": inputs.input_ids,
            "position_ids": inputs.position_ids,
            "visible_below": inputs.visible_below,
            "visible_slots": np.pad(slots, ((0, 0), (0, 0), (0, self._path - width)), constant_values=-1),
            "logit_rows": rows if rows.shape[1] else np.zeros((len(rows), 1), np.int64),
        }

    def _run(self, context: "trt.IExecutionContext", small: dict[str, NDArray[np.int64]], cache: TrtCache) -> Float32:
        """One call; the cache is as it was where it fails."""
        layout, (batch, new) = self._layout, small["input_ids"].shape
        logprobs = np.empty((batch, small["logit_rows"].shape[1], self.columns), np.float32)
        buffer, offsets = packed(small)
        present = self._pool.take(layout.size(batch))
        past, staging, scores = cache.block or present, self._pool.take(buffer.nbytes), self._pool.take(logprobs.nbytes)
        shape, pitch = (batch, layout.heads, cache.length, layout.head_dim), layout.pitch(batch)
        given = {name: (array.shape, staging.address + offsets[name]) for name, array in small.items()}
        given |= {f"past_key_values.{name}": (shape, past.address + i * pitch) for i, name in enumerate(self._names)}
        wanted = {f"present.{name}": present.address + i * pitch for i, name in enumerate(self._names)}
        self._device.upload(staging.address, buffer)
        for name, (dims, address) in given.items():
            self._check(context.set_input_shape(name, dims) and context.set_tensor_address(name, address), name)
        for name, address in (wanted | {"logprobs": scores.address}).items():
            self._check(context.set_tensor_address(name, address), name)
        self._check(context.execute_async_v3(self._device.stream), "the call")
        self._device.download(logprobs, scores.address)
        self._device.synchronize()
        cache.hold(present, batch, cache.length + new)
        return logprobs

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(
                f"TensorRT refused {what}: {self._plan.messages.last()}. If this engine ran before, close what else "
                f"uses the GPU; otherwise build it again: {self._rebuild}"
            )

    def _copy_rows(self, cache: TrtCache, block: Block, rows: Int64) -> None:
        assert cache.block is not None
        layout, width = self._layout, self._layout.row(cache.length)
        to, source = layout.pitch(len(rows)), layout.pitch(cache.batch)
        for i, row in enumerate(rows.tolist()):
            new, old = block.address + i * width, cache.block.address + row * width
            self._device.copy_rows(new, to, old, source, width=width, rows=layout.parts)

    def _copy_slots(self, cache: TrtCache, block: Block, rows: Int64, slots: Int64) -> None:
        assert cache.block is not None
        layout = self._layout
        old = np.empty((cache.batch, layout.heads, cache.length, layout.head_dim * layout.itemsize), np.uint8)
        for part in range(layout.parts):
            self._device.download(old, cache.block.address + part * layout.pitch(cache.batch))
            self._device.synchronize()
            new = np.take_along_axis(old[rows], slots[:, None, :, None], axis=2)
            self._device.upload(block.address + part * layout.pitch(len(rows)), new)
            self._device.synchronize()


@dataclass(frozen=True)
class Plan:
    """A deserialised plan: its profiles with a context each, and what TensorRT said about it."""

    profiles: list[Profile]
    contexts: list["trt.IExecutionContext"]
    messages: Messages
    owners: tuple["trt.ICudaEngine", "trt.Runtime", "trt.ILogger"]  # what must outlive the contexts


def _give_back(pool: Pool, device: Device) -> None:
    with suppress(EngineError), quiet():
        pool.clear()
        device.close()


def load_trt_engine(
    plan: Path,
    facts: ModelFacts,
    trt_facts: TensorRTFacts,
    *,
    columns: int,
    cache_precision: Precision,
    rebuild: str,
) -> TrtEngine:
    """Open a plan on the current GPU; a version-compatible one with TensorRT's lean runtime where only that is here.

    columns: C; cache_precision: of keys and values; rebuild: the command that builds the plan again.
    Raises `EngineError` where there is no TensorRT or no GPU, and where the plan was not made for them.
    """
    trt = import_tensorrt(lean=trt_facts.version_compatible)
    check_fits(trt_facts, version=trt.__version__, compute_capability=None, rebuild=rebuild)
    device = Device()
    check_fits(trt_facts, version=trt.__version__, compute_capability=device.compute_capability(), rebuild=rebuild)
    opened = open_plan(trt, plan, trt_facts, device, rebuild)
    return TrtEngine(opened, facts, device, columns=columns, cache_precision=cache_precision, rebuild=rebuild)


def open_plan(trt: Any, plan: Path, trt_facts: TensorRTFacts, device: Device, rebuild: str) -> Plan:
    """Deserialise a plan and make its contexts; as `load_trt_engine`, the checks done."""
    messages = Messages()
    logger = new_logger(trt, messages)
    runtime = new_tool(trt.Runtime, logger, messages)
    runtime.engine_host_code_allowed = trt_facts.version_compatible  # such a plan brings the runtime's code along
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise EngineError(
            f"TensorRT {trt.__version__} cannot load {plan}: {messages.last()}. Build it again: {rebuild}"
        )
    inputs = [
        name for name in map(engine.get_tensor_name, range(engine.num_io_tensors)) if _is_input(trt, engine, name)
    ]
    if engine.num_optimization_profiles != len(trt_facts.profiles):
        raise EngineError(
            f"{plan} has {engine.num_optimization_profiles} profiles, expected {len(trt_facts.profiles)}. "
            f"Build it again: {rebuild}"
        )
    profiles, contexts = [], []
    for i, name in enumerate(trt_facts.profiles):
        ranges = {n: [tuple(shape) for shape in engine.get_tensor_profile_shape(n, i)] for n in inputs}
        profiles.append(Profile(name=name, shapes={n: (low, opt, high) for n, (low, opt, high) in ranges.items()}))
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE)
        if context is None or not context.set_optimization_profile_async(i, device.stream):
            raise EngineError(
                f"The GPU has no room for {plan}'s calls ({name}): {messages.last()}. Close what uses it, or lower "
                f"--max-batch, --max-prompt or --max-nodes and build it again: {rebuild}"
            )
        contexts.append(context)
    device.synchronize()
    return Plan(profiles, contexts, messages, (engine, runtime, logger))


def _is_input(trt: Any, engine: "trt.ICudaEngine", name: str) -> bool:
    return bool(engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
