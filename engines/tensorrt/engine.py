"""TensorRT: plans in execution contexts, their keys and values kept on the GPU, a buffer to read and one to write."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import finalize

import numpy as np

from ...catalog.errors import EngineError
from ..attention_mask import index_feed
from ..base import Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts, Precision, TensorRTFacts
from ..cache import KVCache
from ..cuda import Device, aligned, packed, quiet
from ..memory import HeldCache, HoldingEngine, Lease, Pool
from .flavour import TENSORRT, Flavour
from .just_in_time import RuntimeCache, check_valid
from .library import Messages, check_fits, import_tensorrt, new_logger, new_tool
from .profiles import BYTES, Profile, choose

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]


@dataclass(frozen=True)
class CacheLayout:
    """How keys and values lie in memory: part after part (a layer's keys, its values, ...), packed [B, heads, S, D].

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
        """Bytes of a cache."""
        return self.parts * self.pitch(batch)


class TrtEngine(HoldingEngine):
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
        self._plan, self._device, self._rebuild = plan, device, rebuild
        self._pool = Pool(device, most=2)  # a small buffer shall not hold a large cache's memory
        self._lock = Lock()
        # Caches hold the engine: none is left then. When the process ends, CUDA may have ended before.
        finalize(self, _give_back, self._pool, device).atexit = False
        capacity = max(profile.range("past")[2] for profile in plan.profiles) + 1
        self._layout = CacheLayout(2 * facts.layers, facts.kv_heads, facts.head_dim, BYTES[cache_precision], capacity)
        self._names = facts.cache_names
        self._path = plan.profiles[0].shapes["visible_slots"][0][2]

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        cache = self.held(cache)
        (batch, new), asked = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        rows = max(asked, 1)  # no axis of a plan may be empty, the cache's aside
        remedy = f"Build it again: {self._rebuild}"
        small = index_feed(inputs, tokens=new, rows=rows, path=self._path, remedy=remedy)
        profile = choose(self._plan.profiles, batch=batch, past=cache.length, new=new, rows=rows, rebuild=self._rebuild)
        with self._lock:
            logprobs = self._run(self._plan.contexts[profile], small, cache)
        return logprobs[:, :asked]

    def kernels(self) -> bytes | None:
        return None if self._plan.compiled is None else self._plan.compiled.serialized()

    def kept(self, cache: HeldCache, rows: Int64, slots: Int64 | None) -> Lease:
        """Rows are copied on the GPU; choosing slots goes through the host (the runtime never does)."""
        assert cache.memory is not None
        with self._lock:
            memory = self._pool.take(self._layout.size(len(rows)))
            if slots is None:
                self._copy_rows(cache, cache.memory, memory, rows)
            else:
                self._copy_slots(cache, cache.memory, memory, rows, slots)
        return memory

    def joined(self, cache: HeldCache, other: HeldCache) -> Lease:
        layout, batch, length = self._layout, cache.batch + other.batch, max(cache.length, other.length)
        longer = cache if cache.length >= other.length else other
        assert longer.memory is not None
        with self._lock:
            memory, to = self._pool.take(layout.size(batch)), layout.pitch(batch)
            width, first = layout.row(length), 0
            for each in (cache, other):
                assert each.memory is not None
                begin, source = memory.address + first * width, layout.pitch(each.batch)
                if each.length < length:  # holes get somebody's numbers: memory that was never written may hold NaN
                    for row in range(each.batch):
                        self._device.copy_rows(
                            begin + row * width, to, longer.memory.address, layout.pitch(longer.batch),
                            width=width, rows=layout.parts,
                        )  # fmt: skip
                slots, wide = layout.row(each.length) // layout.heads, width // layout.heads
                for part in range(layout.parts):
                    self._device.copy_rows(
                        begin + part * to, wide, each.memory.address + part * source, slots,
                        width=slots, rows=each.batch * layout.heads,
                    )  # fmt: skip
                first += each.batch
        return memory

    def _run(self, context: "trt.IExecutionContext", small: dict[str, Int64], cache: HeldCache) -> Float32:
        """One call; the cache is as it was where it fails."""
        layout, (batch, new) = self._layout, small["input_ids"].shape
        logprobs = np.empty((batch, small["logit_rows"].shape[1], self.columns), np.float32)
        buffer, offsets = packed(small)
        present = self._pool.take(layout.size(batch))
        staging, scores = self._pool.take(buffer.nbytes), self._pool.take(logprobs.nbytes)
        past = cache.memory or present
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

    def _copy_rows(self, cache: HeldCache, past: Lease, present: Lease, rows: Int64) -> None:
        layout, width = self._layout, self._layout.row(cache.length)
        to, source = layout.pitch(len(rows)), layout.pitch(cache.batch)
        for i, row in enumerate(rows.tolist()):
            new, old = present.address + i * width, past.address + row * width
            self._device.copy_rows(new, to, old, source, width=width, rows=layout.parts)

    def _copy_slots(self, cache: HeldCache, past: Lease, present: Lease, rows: Int64, slots: Int64) -> None:
        layout = self._layout
        old = np.empty((cache.batch, layout.heads, cache.length, layout.head_dim * layout.itemsize), np.uint8)
        for part in range(layout.parts):
            self._device.download(old, past.address + part * layout.pitch(cache.batch))
            self._device.synchronize()
            new = np.take_along_axis(old[rows], slots[:, None, :, None], axis=2)
            self._device.upload(present.address + part * layout.pitch(len(rows)), new)
            self._device.synchronize()


@dataclass(frozen=True)
class Plan:
    """A deserialised plan: its profiles with a context each, and what TensorRT said about it."""

    profiles: list[Profile]
    contexts: list["trt.IExecutionContext"]
    messages: Messages
    compiled: RuntimeCache | None  # of a flavour that compiles kernels when it loads
    owners: tuple["trt.ICudaEngine", "trt.Runtime", "trt.ILogger"]  # what must outlive the contexts


def _give_back(pool: Pool, device: Device) -> None:
    with suppress(EngineError), quiet():
        pool.clear()
        device.close()


def load_trt_engine(
    plan: Path,
    facts: ModelFacts,
    trt_facts: TensorRTFacts,
    flavour: Flavour = TENSORRT,
    *,
    columns: int,
    cache_precision: Precision,
    rebuild: str,
    kernels: bytes | None = None,
) -> TrtEngine:
    """Open a plan on the current GPU; a version-compatible one with TensorRT's lean runtime where only that is here.

    columns: C; cache_precision: of keys and values; rebuild: the command that builds the plan again; kernels: what
    `TrtEngine.kernels` gave on this kind of GPU. Raises `EngineError` where there is no TensorRT or no GPU, and where
    the plan was not made for them.
    """
    trt = import_tensorrt(flavour, lean=trt_facts.version_compatible)
    check_fits(trt_facts, flavour, version=trt.__version__, compute_capability=None, rebuild=rebuild)
    device = Device()
    with ExitStack() as failed:
        failed.callback(device.close)
        here = device.compute_capability()
        check_fits(trt_facts, flavour, version=trt.__version__, compute_capability=here, rebuild=rebuild)
        opened = open_plan(trt, plan, trt_facts, flavour, device, rebuild, kernels)
        failed.pop_all()  # the device is the engine's from here on
    return TrtEngine(opened, facts, device, columns=columns, cache_precision=cache_precision, rebuild=rebuild)


def open_plan(
    trt: Any, plan: Path, trt_facts: TensorRTFacts, flavour: Flavour, device: Device, rebuild: str,
    kernels: bytes | None = None,
) -> Plan:  # fmt: skip
    """Deserialise a plan and make its contexts; as `load_trt_engine`, the checks done."""
    messages = Messages()
    logger = new_logger(trt, messages)
    runtime = new_tool(trt.Runtime, logger, messages, flavour)
    runtime.engine_host_code_allowed = trt_facts.version_compatible  # such a plan brings the runtime's code along
    data = plan.read_bytes()
    if flavour.ahead_of_time:
        check_valid(trt, runtime, data, plan, flavour, messages, rebuild)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(
            f"{flavour.title} {trt.__version__} cannot load {plan}: {messages.last()}. Build it again: {rebuild}"
        )
    compiled = RuntimeCache(trt, engine, kernels) if flavour.ahead_of_time else None
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
        strategy = trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        context = engine.create_execution_context(strategy if compiled is None else compiled.config(strategy))
        if context is None or not context.set_optimization_profile_async(i, device.stream):
            raise EngineError(
                f"The GPU has no room for {plan}'s calls ({name}): {messages.last()}. Close what uses it, or lower "
                f"--max-batch, --max-prompt or --max-nodes and build it again: {rebuild}"
            )
        contexts.append(context)
    device.synchronize()
    return Plan(profiles, contexts, messages, compiled, (engine, runtime, logger))


def _is_input(trt: Any, engine: "trt.ICudaEngine", name: str) -> bool:
    return bool(engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
