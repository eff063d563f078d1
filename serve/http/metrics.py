"""/metrics: what Prometheus reads, in a registry of this server's own."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ...runtime.stats import DecodeStats
from ..editions import Edition
from ..models import Models, UnknownModel
from ..observer import Observer, Outcome
from ..protocol import measures
from ..protocol.measures import SECONDS, SIZES, SUMS
from ..recommender import AsyncRecommender

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@final
class Metrics(Observer):
    """Counts what happens; the worker tells it of the engines, the HTTP service of requests."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry(auto_describe=False)
        self._http = Counter(
            "specbeam_http_requests", "HTTP requests, by route and status.", ["route", "code"], registry=own
        )
        self._http_seconds = Histogram(
            "specbeam_http_seconds", "From an HTTP request's head to its answer.", ["route"], buckets=SECONDS,
            registry=own,
        )  # fmt: skip
        self.in_flight = Gauge("specbeam_http_in_flight", "HTTP requests that are being answered.", registry=own)
        self._ended = Counter("specbeam_requests", measures.ENDED, ["model", "outcome"], registry=own)
        self._seconds = self._histogram("request_seconds", measures.REQUEST_SECONDS, SECONDS)
        self._waited = self._histogram("queue_seconds", measures.QUEUE_SECONDS, SECONDS)
        self._batch = self._histogram("batch_requests", measures.BATCH, SIZES)
        self._sums = {name: self._counter(name, told) for name, told in SUMS.items()}
        self._needed = self._counter("nodes_needed", measures.NEEDED)
        self._found = self._counter("nodes_found", measures.FOUND)

    def _histogram(self, name: str, told: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"specbeam_{name}", told, ["model"], buckets=buckets, registry=self.registry)

    def _counter(self, name: str, told: str) -> Counter:
        return Counter(f"specbeam_{name}", told, ["model"], registry=self.registry)

    def watch(self, models: Models) -> None:
        """Show these models' queues and versions, as they are when somebody asks."""
        self.registry.register(State(models))

    def answered(self, route: str, code: int, seconds: float) -> None:
        """An HTTP request has been answered."""
        self._http.labels(route, str(code)).inc()
        self._http_seconds.labels(route).observe(seconds)

    def refused(self, model: str) -> None:
        self._ended.labels(model, "refused").inc()

    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        self._ended.labels(edition.model, outcome).inc()
        self._waited.labels(edition.model).observe(waited)
        if outcome == "answered":
            self._seconds.labels(edition.model).observe(seconds)

    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        if batch:
            self._batch.labels(edition.model).observe(batch)
        for name, counter in self._sums.items():
            counter.labels(edition.model).inc(getattr(stats, name))
        self._needed.labels(edition.model).inc(int(stats.needed[1:].sum()))
        self._found.labels(edition.model).inc(int(stats.found[1:].sum()))

    def page(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


@final
class State(Collector):
    """What is read when somebody asks, and kept nowhere."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily("specbeam_queue_length", "Requests that wait.", labels=["model"])
        flying = GaugeMetricFamily("specbeam_flying", "Requests in the engines.", labels=["model"])
        info = GaugeMetricFamily(
            "specbeam_model_info", "1 for what new requests are served by.",
            labels=["model", "version", "catalog_version"],
        )  # fmt: skip
        seen = set()
        for served in _each(self._models):
            edition, worker = served.edition, served.worker
            info.add_metric([edition.model, edition.version, edition.catalog], 1)
            if worker not in seen:  # models on one device share a worker: it is counted once, under the first's name
                queue.add_metric([edition.model], len(worker.waiting))
                flying.add_metric([edition.model], worker.flying)
            seen.add(worker)
        memory = GaugeMetricFamily("specbeam_resident_bytes", "Memory of this process.", value=resident_bytes())
        yield from (queue, flying, info, memory)


def _each(models: Models) -> Iterator[AsyncRecommender]:
    for name in models.names:
        with suppress(UnknownModel):  # unloaded meanwhile
            yield models.named(name)


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
