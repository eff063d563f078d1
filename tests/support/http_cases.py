"""The HTTP service in this process, over scripted engines."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from scripted_recommender import PREFIX, make
from scripted_search import random_catalog
from specbeam.engines.base import Engine, Float32, ForwardInputs
from specbeam.engines.cache import KVCache
from specbeam.runtime import Recommender
from specbeam.runtime.loaded import Loaded
from specbeam.serve import Serving
from specbeam.serve.editions import Edition
from specbeam.serve.http.app import create_app
from specbeam.serve.http.logs import Log
from specbeam.serve.http.metrics import Metrics
from specbeam.serve.http.service import HttpSettings, Phase, Service
from specbeam.serve.models import Models

ROWS = random_catalog(np.random.default_rng(5), 60, 3, 9)
MAX_K = 40


class Gate(Engine):
    """An engine whose calls wait until the gate is open, or fail."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(columns=engine.columns)
        self.engine, self.open, self.entered = engine, Event(), Event()
        self.error: Exception | None = None

    def new_cache(self, batch: int) -> KVCache:
        return self.engine.new_cache(batch)

    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Float32:
        self.entered.set()
        assert self.open.wait(60)
        if self.error is not None:
            raise self.error
        return self.engine.forward(inputs, cache)


def shop(**options: Any) -> Recommender:
    """60 items "i0" to "i59", and lists of at most 40."""
    return make(ROWS, max_k=MAX_K, **options)


def gated() -> tuple[Recommender, Gate]:
    """The same behind a gate."""
    recommender = shop(shape=None)
    gate = Gate(recommender._search._target.engine)
    loaded = Loaded(recommender.catalog, recommender.trie, recommender.encoder._prompts, gate, max_k=MAX_K)
    return Recommender(loaded, planning=recommender.planning), gate


@dataclass(frozen=True)
class Served:
    """A service, and a client of it."""

    client: TestClient
    service: Service
    written: io.StringIO  # its log

    def ask(self, body: Any, **options: Any) -> Any:
        """POST /v1/recommend."""
        return self.client.post("/v1/recommend", content=json.dumps(body), **options)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written.getvalue().splitlines()]


@contextmanager
def served(
    *recommenders: Recommender, settings: HttpSettings | None = None, serving: Serving | None = None,
    phase: Phase = "ready",
) -> Iterator[Served]:  # fmt: skip
    """Models "shop", "shop1", ...: of a version "7" with a catalog "9"."""
    metrics, written = Metrics(), io.StringIO()
    service = Service(settings or HttpSettings(), Models(serving, metrics), metrics, Log(written))
    for number, recommender in enumerate(recommenders or (shop(),)):
        service.models.add(Edition(f"shop{number or ''}", "7", "9", recommender))
    service.phase = phase
    try:
        yield Served(TestClient(create_app(service), raise_server_exceptions=False), service, written)
    finally:
        service.models.close(drain=False, timeout=60)


__all__ = ["MAX_K", "PREFIX", "ROWS", "Gate", "Served", "gated", "served", "shop"]
