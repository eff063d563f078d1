"""What to serve a bundle with on this machine: threads, processes and batch, by how long its engine's calls take."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..catalog.errors import SpecBeamError
from ..engines.bundle.facts import ModelFacts, RoleFacts
from ..engines.bundle.items import Bundle
from ..engines.bundle.model import bundle_kind
from ..engines.doctor.health import Health, ServingSize
from ..runtime.planning.costs import CallCosts

K, HISTORY = 20, 10  # items of the lists, and of the histories, that it is sized for
GAIN = 1.1  # a batch is worth its size where it serves so many times as many users as one of half its size
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
BASE = 120_000_000  # bytes of a process before it has loaded anything: the interpreter and its libraries
COPIES = 2  # of caches: a call's old and new ones live side by side


def proposed(health: Health) -> ServingSize | None:
    """A size for the engine that serves by default; None: none runs here, or the bundle holds no items."""
    found = health.bundle
    running = [engine.name for engine in found.engines if engine.runs] if found is not None else []
    if found is None or not running:
        return None
    name = found.default_engine if found.default_engine in running else running[0]
    try:
        return None if bundle_kind(Path(found.path)) != "items" else _size(health, name, Bundle.open(found.path))
    except (SpecBeamError, OSError):  # what is damaged has been told of already
        return None


def _size(health: Health, name: str, bundle: Bundle) -> ServingSize:
    facts, manifest = bundle.engine_facts(name), bundle.manifest
    load = _Load.of(bundle, facts.roles["target"])
    free, each = _available(health, facts.device), load.request_bytes(manifest.target)
    held = BASE * (facts.device == "cpu") + sum(file.bytes for file in facts.files.values())
    batch = load.best_batch(None if free is None else max(1, (free - held) // each))
    taken = held + batch * each
    threads, workers = min(facts.threads, health.processors.usable), 1
    if facts.device == "cpu":
        most = health.processors.usable // threads
        workers = max(1, most if free is None else min(most, free // taken))
    notes = []
    if facts.threads > threads:
        notes.append(
            f"the engine's calls were timed with {facts.threads} threads, and {threads} run here at a time. To time "
            f"them here: {bundle.rebuild(name, facts)} --threads {threads}"
        )
    if free is not None and taken > free:
        notes.append(f"one process takes about {taken / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    return ServingSize(
        engine=name, threads=threads, workers=workers, batch=batch, top_k=load.k, history=load.history,
        prompt_tokens=load.prompt, users_per_second=workers * 1000 * batch / load.milliseconds(batch),
        alone_ms=load.milliseconds(1), batch_ms=load.milliseconds(batch), memory=taken, notes=tuple(notes),
    )  # fmt: skip


@dataclass(frozen=True)
class _Load:
    """What a request asks of the target: a prompt, then the beam's nodes at every depth, and nothing drafted."""

    target: RoleFacts
    k: int
    history: int  # items
    prompt: int  # tokens
    length: int  # L

    @classmethod
    def of(cls, bundle: Bundle, target: RoleFacts) -> "_Load":
        trie = bundle.trie()
        prompts = bundle.prompts(trie)
        history = min(HISTORY, prompts.max_items, len(trie.item))
        k = min(K, bundle.manifest.max_top_k, bundle.manifest.items)
        return cls(target, k, history, len(prompts.encode(np.arange(history)).ids), trie.length)

    def milliseconds(self, batch: int) -> float:
        """Of the engine, for a batch of such requests that runs to its end."""
        costs = CallCosts(self.target.latency)
        nodes = (costs.milliseconds(batch, self.prompt + depth * self.k, self.k) for depth in range(self.length - 1))
        return costs.milliseconds(batch, 0, self.prompt, self.prompt) + sum(nodes)

    def best_batch(self, room: int | None) -> int:
        """The largest power of two whose calls were timed, which fits, and up to which every doubling pays."""
        most = max(point.batch for point in self.target.latency)
        if self.target.tensorrt is not None:
            most = min(most, self.target.tensorrt.limits.max_batch)
        batch, most = 1, most if room is None else min(most, room)
        while 2 * batch <= most and 2 * self.milliseconds(batch) >= GAIN * self.milliseconds(2 * batch):
            batch *= 2
        return batch

    def request_bytes(self, model: ModelFacts) -> int:
        """What a request holds at most while it is served: keys and values, and its rows of log-probabilities."""
        slots = self.prompt + (self.length - 1) * self.k
        kept = 2 * model.layers * model.kv_heads * model.head_dim * BYTES[self.target.cache] * slots
        return COPIES * kept + 4 * self.k * model.vocabulary


def _available(health: Health, device: str) -> int | None:
    """Bytes that are free where the engine's memory is; None: unknown."""
    if device == "cuda":
        return next((gpu.free for gpu in health.gpus.devices), None)
    sizes = [size for size in (health.memory.available, health.memory.limit) if size is not None]
    return min(sizes, default=None)
