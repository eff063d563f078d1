"""ONNX Runtime with everything on the device: a call brings indices and takes log-probabilities, nothing else.

Made for CUDA; it runs on the CPU, too, where the tests hold it against the plain engine.
"""

from collections.abc import Mapping

import onnxruntime as ort  # type: ignore[import-untyped]

from ..attention_mask import index_feed
from ..base import Engine, Float32, ForwardInputs, Int64
from ..bundle.facts import ModelFacts, Precision
from ..cache import KVCache
from ..memory import HeldCache, held
from .bound import DEVICE, BoundSession, Tensors, Transfers, call_failed
from .buckets import bucket, padded_tokens
from .gathered import GatheredCaches

GATHER = "gather.onnx"  # beside the model's graph; written by graphs/gather.py


class DeviceEngine(Engine):
    """A graph with index inputs (`visible_below`, `visible_slots`) and a gather graph, run on one device's memory.

    Calls are padded to sizes that come again (buckets.py): the cache grows by the padded number. Threads may share it;
    one call at a time is on the device.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        gather: ort.InferenceSession,
        facts: ModelFacts,
        precision: Precision,
        device: str,
        *,
        cuda_graphs: bool = False,
    ) -> None:
        """precision: of the cache; cuda_graphs: both sessions were opened to capture them."""
        shapes = {value.name: value.shape for value in [*session.get_inputs(), *session.get_outputs()]}
        super().__init__(columns=int(shapes["logprobs"][2]))
        self._path = int(shapes["visible_slots"][2])  # slots that a token may name
        self._model, self.transfers = BoundSession(session, device, cuda_graphs=cuda_graphs), Transfers(device)
        keeper = BoundSession(gather, device, cuda_graphs=cuda_graphs)
        self.caches = GatheredCaches(keeper, self.transfers, facts, precision, device)

    def new_cache(self, batch: int) -> HeldCache:
        return HeldCache(self.caches, batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        return self.called(inputs, held(cache), {}, ())

    def called(
        self, inputs: ForwardInputs, cache: HeldCache, lengths: Mapping[str, Int64], read: tuple[Tensors, ...]
    ) -> Float32:
        """`forward`, which an encoder-decoder tells what its encoder has read: lengths on the host, keys and values."""
        (batch, new), count = inputs.input_ids.shape, inputs.logit_rows.shape[1]
        length = cache.length + padded_tokens(cache.length, new)
        small = index_feed(
            inputs,
            tokens=length - cache.length,
            rows=bucket(count),
            path=self._path,
            remedy="Build it from the bundle whose items it serves.",
        )
        with DEVICE:
            memory = self.caches.new(batch, length)
            # A past of no slots has no memory of its own: no address is read, but none may be null.
            past = self.caches.tensors("past_key_values", cache.memory or memory, batch, cache.length)
            present = self.caches.tensors("present", memory, batch, length)
            result = self.transfers.result("logprobs", (batch, bucket(count), self.columns))
            try:
                given = (*self.transfers.upload(small | dict(lengths)), past, *read)
                logprobs = self.transfers.download(self._model.run(given, (result, present)))
            except Exception as error:  # ONNX Runtime's exceptions share no base of their own
                raise call_failed(error, batch, new) from error
        cache.hold(memory, batch, length)
        return logprobs[:, :count]
