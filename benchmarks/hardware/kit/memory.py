"""What an engine holds: of the device by its driver's tool, of the process by the operating system."""

from functools import partial
from importlib import import_module
from threading import Event, Thread

from benchmarks.hardware.kit.engines import opened, proven
from benchmarks.hardware.kit.machine import free_memory
from benchmarks.hardware.kit.parts import Job, Steps
from benchmarks.hardware.kit.record import Row
from benchmarks.hardware.kit.users import kept_users, pair
from specbeam.engines.machine.processors import found_memory
from specbeam.evaluate.race.memory import PeakMemory
from specbeam.runtime import DraftShape
from specbeam.runtime.options import Drafting

EVERY = 0.2  # seconds between two looks at the device


class Least:
    """The least free memory of the device while this is open, in bytes; None: there is none, or it is not told."""

    def __init__(self, on: bool) -> None:
        self._on, self._done = on, Event()
        self.free = free_memory() if on else None
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Least":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._see()

    def _look(self) -> None:
        while not self._done.wait(EVERY):
            self._see()

    def _see(self) -> None:
        free = free_memory() if self._on else None
        if free is not None and self.free is not None:
            self.free = min(self.free, free)


def steps(job: Job) -> Steps:
    """A step a process: what another engine left would count as this one's."""
    return {engine: partial(held, job, engine) for engine in proven(job)}


def held(job: Job, engine: str) -> list[Row]:
    """Opened, then lists in batches with drafts: megabytes more than before."""
    on = job.device == "cuda"
    bundle, users = pair(job), kept_users(job)
    if (library := engine.partition("-")[0]) in ("torch", "onnxruntime"):
        import_module(library)  # what it takes by itself is not the engine's
    first = free_memory() if on else None
    host, batch = PeakMemory(), max(job.sizes.batch_sizes[:2])
    shape = DraftShape(job.sizes.width, min(3, bundle.manifest.identifier_length - 1))
    with host.during("opened"), Least(on) as opening:
        recommender = opened(bundle, engine, drafting=Drafting(shape=shape), batch=batch)
    with host.during("serving"), Least(on) as serving:
        recommender.recommend(users.histories, max(job.sizes.top_k), users=users.names)
    row: Row = {"engine": engine, "batch": batch, "K": max(job.sizes.top_k)}
    for name, seen in (("opened", opening), ("serving", serving)):
        device = None if first is None or seen.free is None else round((first - seen.free) / 1e6, 1)
        added = host.added.get(name)
        row |= {f"{name}: MB of the device": device, f"{name}: MB of the process": added and round(added, 1)}
    total = found_memory().total
    return [row | {"the machine's MB": None if total is None else round(total / 1e6)}]
