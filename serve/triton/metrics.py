"""What happens as metrics of Triton's own endpoint."""

from collections import defaultdict
from threading import Lock
from typing import Any, final

from ...runtime.stats import DecodeStats
from ..editions import Edition
from ..observer import Observer, Outcome
from ..protocol import measures

COUNTS = {  # names as Prometheus' own client writes them
    "specbeam_requests_total": measures.ENDED,
    **{f"specbeam_{name}_total": told for name, told in measures.SUMS.items()},
    "specbeam_nodes_needed_total": measures.NEEDED,
    "specbeam_nodes_found_total": measures.FOUND,
}
SECONDS, SIZES = list(map(float, measures.SECONDS)), list(map(float, measures.SIZES))
HISTOGRAMS = {
    "specbeam_request_seconds": (measures.REQUEST_SECONDS, SECONDS),
    "specbeam_queue_seconds": (measures.QUEUE_SECONDS, SECONDS),
    "specbeam_batch_requests": (measures.BATCH, SIZES),
}
OUTCOME = "outcome"
Key = tuple[str, str]  # family, outcome or ""


@final
class TritonMetrics(Observer):
    """Counts in this process, and hands on what has been counted when it is told to: a metric of Triton's costs a
    message to the server each time, which the worker's thread is spared."""

    def __init__(self, utils: Any, model: str, version: str) -> None:
        """utils: the module `triton_python_backend_utils`."""
        self._labels, self._lock = {"model": model, "version": version}, Lock()
        self._counted: defaultdict[Key, float] = defaultdict(float)
        self._seen: list[tuple[str, float]] = []
        family = utils.MetricFamily  # families are kept: their metrics end with them
        self._counts = {name: family(name=name, description=told, kind=family.COUNTER) for name, told in COUNTS.items()}
        self._histograms = {
            name: family(name=name, description=told, kind=family.HISTOGRAM)
            for name, (told, _) in HISTOGRAMS.items()
        }  # fmt: skip
        self._bounded = {
            name: self._histograms[name].Metric(labels=self._labels, buckets=bounds)
            for name, (_, bounds) in HISTOGRAMS.items()
        }
        self._metrics: dict[Key, Any] = {}
        for name in COUNTS:
            if name != "specbeam_requests_total":
                self._metric((name, "")).increment(0)

    def refused(self, model: str) -> None:
        self._count({("specbeam_requests_total", "refused"): 1})

    def ended(self, edition: Edition, outcome: Outcome, waited: float, seconds: float) -> None:
        seen = [("specbeam_queue_seconds", waited)]
        if outcome == "answered":
            seen.append(("specbeam_request_seconds", seconds))
        self._count({("specbeam_requests_total", outcome): 1}, seen)

    def called(self, edition: Edition, batch: int, stats: DecodeStats) -> None:
        counted: dict[Key, float] = {(f"specbeam_{name}_total", ""): getattr(stats, name) for name in measures.SUMS}
        counted["specbeam_nodes_needed_total", ""] = int(stats.needed[1:].sum())
        counted["specbeam_nodes_found_total", ""] = int(stats.found[1:].sum())
        self._count(counted, [("specbeam_batch_requests", batch)] if batch else [])

    def hand_on(self) -> None:
        """Let Triton's endpoint show what has been counted since. From one thread at a time."""
        with self._lock:
            counted, self._counted = self._counted, defaultdict(float)
            seen, self._seen = self._seen, []
        for key, value in counted.items():
            if value:
                self._metric(key).increment(value)
        for name, value in seen:
            self._bounded[name].observe(value)

    def _count(self, counted: dict[Key, float], seen: "list[tuple[str, float]] | None" = None) -> None:
        with self._lock:
            for key, value in counted.items():
                self._counted[key] += value
            self._seen += seen or []

    def _metric(self, key: Key) -> Any:
        if key not in self._metrics:
            name, outcome = key
            labels = self._labels | ({OUTCOME: outcome} if outcome else {})
            self._metrics[key] = self._counts[name].Metric(labels=labels)
        return self._metrics[key]
