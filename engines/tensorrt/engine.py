"""TensorRT: plans in execution contexts, their keys and values kept on the GPU, a buffer to read and one to write."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...catalog.errors import EngineError
from ..attention_mask import index_feed
from ..base import Engine, Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts, Precision
from ..cache import KVCache
from ..cuda import packed
from ..memory import HeldCache, held
from .caches import CacheLayout, Memory, Placed, TrtCaches
from .just_in_time import RuntimeCache
from .library import Messages
from .profiles import Profile, choose

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]


@dataclass(frozen=True)
class Plan:
    """A deserialised plan: its profiles with a context each, and what TensorRT said about it."""

    profiles: list[Profile]
    contexts: list["trt.IExecutionContext"]
    messages: Messages
    compiled: RuntimeCache | None  # of a flavour that compiles kernels when it loads
    rebuild: str  # the command that errors name
    owners: tuple["trt.ICudaEngine", "trt.Runtime", "trt.ILogger"]  # what must outlive the contexts

    def run(
        self, profile: int, memory: Memory, small: Mapping[str, Int64], given: Mapping[str, Placed],
        wanted: Mapping[str, Placed], logprobs: Float32 | None = None,
    ) -> None:  # fmt: skip
        """One call, done when this returns; the caller holds the memory's lock.

        small: inputs that are on the host; given, wanted: inputs and outputs on the GPU; logprobs: filled, where the
        graph has such an output.
        """
        context, device = self.contexts[profile], memory.device
        buffer, offsets = packed(dict(small))
        staging, scores = memory.pool.take(buffer.nbytes), None
        inputs = {name: Placed(array.shape, staging.address + offsets[name]) for name, array in small.items()}
        outputs = {name: placed.address for name, placed in wanted.items()}
        if logprobs is not None:
            scores = memory.pool.take(logprobs.nbytes)
            outputs["logprobs"] = scores.address
        device.upload(staging.address, buffer)
        for name, (shape, address) in (inputs | dict(given)).items():
            self._check(context.set_input_shape(name, shape) and context.set_tensor_address(name, address), name)
        for name, address in outputs.items():
            self._check(context.set_tensor_address(name, address), name)
        self._check(context.execute_async_v3(device.stream), "the call")
        if logprobs is not None and scores is not None:
            device.download(logprobs, scores.address)
        device.synchronize()

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(
                f"TensorRT refused {what}: {self.messages.last()}. If this engine ran before, close what else uses the "
                f"GPU; otherwise build it again: {self.rebuild}"
            )


class Beside(NamedTuple):
    """What a decoder takes beside its own cache: what an encoder has read."""

    lengths: Mapping[str, Int64]  # on the host
    read: Mapping[str, Placed]


NOTHING = Beside({}, {})


class TrtEngine(Engine):
    """A plan of a graph with index inputs; one execution context a profile, one stream, one call at a time."""

    def __init__(
        self, plan: Plan, facts: ModelFacts, memory: Memory, *, columns: int, cache_precision: Precision
    ) -> None:
        """columns: C."""
        super().__init__(columns=columns)
        self._plan = plan
        capacity = max(profile.range("past")[2] for profile in plan.profiles) + 1
        self._caches = TrtCaches(memory, CacheLayout.of(facts, cache_precision, capacity), facts.cache_names)
        self._path = plan.profiles[0].shapes["visible_slots"][0][2]

    def new_cache(self, batch: int) -> HeldCache:
        return HeldCache(self._caches, batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        return self.called(inputs, held(cache), NOTHING)

    def called(self, inputs: ForwardInputs, cache: HeldCache, beside: Beside) -> Float32:
        """`forward`, which an encoder-decoder tells what its encoder has read."""
        (batch, new), asked = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        rows, rebuild = max(asked, 1), self._plan.rebuild  # no axis of a plan may be empty, the cache's aside
        small = index_feed(inputs, tokens=new, rows=rows, path=self._path, remedy=f"Build it again: {rebuild}")
        profile = choose(self._plan.profiles, batch=batch, past=cache.length, new=new, rows=rows, rebuild=rebuild)
        logprobs = np.empty((batch, rows, self.columns), np.float32)
        with self._caches.memory.lock:
            present = self._caches.new(batch)
            past = self._caches.parts("past_key_values", cache.memory or present, batch, cache.length)
            wanted = self._caches.parts("present", present, batch, cache.length + new)
            given = {**past, **beside.read}
            self._plan.run(profile, self._caches.memory, {**small, **beside.lengths}, given, wanted, logprobs)
            cache.hold(present, batch, cache.length + new)  # as it was where the call fails
        return logprobs[:, :asked]

    def kernels(self) -> bytes | None:
        return None if self._plan.compiled is None else self._plan.compiled.serialized()
