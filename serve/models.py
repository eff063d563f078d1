"""The models that are served, by name: one worker for each device, whatever models are on it."""

from threading import Lock
from typing import final

from ..catalog.errors import SpecBeamError
from .editions import Edition
from .observer import Observer
from .options import Serving
from .recommender import AsyncRecommender
from .worker import Worker


class UnknownModel(SpecBeamError):
    """No model of that name is served."""


@final
class Models:
    """Models by name. Safe to share between threads; `close` frees all of them."""

    def __init__(self, serving: Serving | None = None, observer: Observer | None = None) -> None:
        self._serving, self._observer = serving, observer
        self._workers: dict[str, Worker] = {}
        self._models: dict[str, AsyncRecommender] = {}
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        """Of all models, the first one loaded first: it is the one that serves requests that name none."""
        return list(self._models)

    def named(self, name: str | None = None) -> AsyncRecommender:
        """What serves a model; None: the first one. Raises `UnknownModel` with those there are."""
        models = self._models
        if name is None and models:
            return next(iter(models.values()))
        if name is None or name not in models:
            raise UnknownModel(f"no model {name!r} is served; there is: {', '.join(models) or 'none'}.")
        return models[name]

    def add(self, edition: Edition, device: str = "cpu") -> AsyncRecommender:
        """Serve a model; where one of its name is served, new requests get this edition."""
        with self._lock:
            if edition.model in self._models:
                self._models[edition.model].use(edition)
            else:
                if device not in self._workers:
                    self._workers[device] = Worker(self._serving, self._observer)
                self._models = self._models | {edition.model: AsyncRecommender(edition, self._workers[device])}
            return self._models[edition.model]

    def remove(self, name: str) -> None:
        """Serve a model no more; requests that wait or run are still answered. Raises `UnknownModel`."""
        with self._lock:
            self.named(name)
            self._models = {other: one for other, one in self._models.items() if other != name}

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take no more requests; answer those that wait, or refuse them. Returns whether all ended."""
        ended = [worker.close(drain=drain, timeout=timeout) for worker in self._workers.values()]
        return all(ended)
