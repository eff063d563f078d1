"""The models that are served, by name and version: one worker for each device, whatever models are on it."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import final

import msgspec

from ..catalog.errors import OptionError, SpecBeamError
from ..engines.bundle.items import Bundle
from .catalogs import KEPT, Catalogs
from .editions import Edition
from .memory import device_of
from .observer import Observer
from .opening import Opening
from .options import Serving
from .recommender import AsyncRecommender
from .worker import Worker

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class UnknownModel(SpecBeamError):
    """No model of that name, or no such version of it, is served."""


class StillServes(SpecBeamError):
    """A version cannot be unloaded, as new requests get it."""


class VersionStatus(msgspec.Struct, frozen=True):
    """One version of a model."""

    model: str
    version: str
    current: bool  # whether requests get it that name no version
    bundle: str | None
    device: str
    catalog: str  # its version
    kept: list[str]  # versions of earlier catalogs
    items: int


@dataclass(frozen=True, eq=False)
class _Version:
    """One version, loaded."""

    catalogs: Catalogs
    device: str
    bundle: Path | None

    def status(self, current: bool) -> VersionStatus:
        edition = self.catalogs.serving.edition
        return VersionStatus(
            edition.model, edition.version, current, None if self.bundle is None else str(self.bundle), self.device,
            edition.catalog, self.catalogs.kept, len(edition.recommender.catalog.item_ids),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Named:
    """All versions of one model. Replaced as a whole, so that it is read without a lock."""

    current: str
    versions: dict[str, _Version]  # those that served, or were loaded, last at the end

    def having(self, number: str, version: _Version, *, current: bool) -> "_Named":
        """With this version; of those that do not serve, the last ones are kept."""
        last = {self.current: self.versions[self.current], number: version}
        versions = {other: one for other, one in self.versions.items() if other not in last} | last
        serving = number if current else self.current
        others = [other for other in versions if other != serving]
        return _Named(serving, {other: one for other, one in versions.items() if other not in others[:-KEPT]})


@final
class Models:
    """Models by name. Safe to share between threads; `close` frees all of them."""

    def __init__(
        self, serving: Serving | None = None, observer: Observer | None = None, opening: Opening | None = None
    ) -> None:
        """opening: what `load` opens bundles with."""
        self._serving, self._observer, self._opening = serving, observer, opening or Opening()
        self._workers: dict[str, Worker] = {}
        self._models: dict[str, _Named] = {}
        self._numbers: Counter[str] = Counter()  # versions that there have been, by name: none is given twice
        self._lock, self._loading = Lock(), Lock()

    @property
    def names(self) -> list[str]:
        """Of all models, the first one loaded first: it is the one that serves requests that name none."""
        return list(self._models)

    def named(self, name: str | None = None, version: str | None = None) -> AsyncRecommender:
        """What serves a model; None: the first one, and the version that was switched to.

        Raises `UnknownModel` with those there are.
        """
        return self.catalogs(name, version).serving

    def versions(self, name: str | None = None) -> list[str]:
        """Of a model, all that are loaded. Raises `UnknownModel`."""
        return list(self._named(name).versions)

    def catalogs(self, name: str | None = None, version: str | None = None) -> Catalogs:
        """The catalogs of a model; as `named`."""
        named = self._named(name)
        return self._version(named, named.current if version is None else version).catalogs

    def status(self) -> list[VersionStatus]:
        """All versions of all models."""
        every = list(self._models.values())
        return [one.status(number == named.current) for named in every for number, one in named.versions.items()]

    def load(self, name: str, bundle: str | Path | Bundle, *, engine: str | None = None) -> Edition:
        """Load a bundle as the next version of a model, warm, beside what serves. The first one of a name serves.

        engine: by name; None: as all models are opened. Of the versions that do not serve, the last ones are kept.
        Raises `NoRoom` before anything is loaded, `BundleError`, `EngineError`, and `RequestError` where the engine
        gives no numbers for any history.
        """
        if not NAME.fullmatch(name):
            raise OptionError(f"{name!r} cannot name a model; expected letters, digits, dots, - and _, 100 at most.")
        chosen = self._opening.chosen(bundle, engine)
        with self._loading:  # one at a time: each is held against the memory that is free
            recommender = self._opening.load(chosen)
        with self._lock:
            edition = Edition(name, str(self._numbers[name] + 1), "1", recommender)
            self._add(edition, device_of(chosen.engine), chosen.bundle.path, current=False)
        return edition

    def add(self, edition: Edition, device: str = "cpu", bundle: Path | None = None) -> AsyncRecommender:
        """Serve a model; where one of its name is served, new requests get this edition."""
        with self._lock:
            return self._add(edition, device, bundle, current=True)

    def switch(self, name: str, version: str) -> Edition:
        """Serve requests that name no version by this one; those that wait or run keep theirs.

        Raises `UnknownModel`.
        """
        with self._lock:
            named = self._named(name)
            self._put(name, named.having(version, self._version(named, version), current=True))
            return self.named(name).edition

    def unload(self, name: str, version: str | None = None) -> None:
        """Serve a version, or a whole model, no more; requests that wait or run are still answered.

        Raises `UnknownModel`, and `StillServes` for the version that was switched to, where there are others.
        """
        with self._lock:
            named = self._named(name)
            if version is not None:
                self._version(named, version)
            others = {other: one for other, one in named.versions.items() if version not in (None, other)}
            if version == named.current and others:
                raise StillServes(
                    f"version {version} of {name!r} serves; there are also: {', '.join(others)}. Switch to another "
                    "first, or unload the whole model."
                )
            if others:
                self._put(name, _Named(named.current, others))
            else:
                self._models = {other: one for other, one in self._models.items() if other != name}

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Take no more requests; answer those that wait, or refuse them. Returns whether all ended."""
        ended = [worker.close(drain=drain, timeout=timeout) for worker in self._workers.values()]
        return all(ended)

    def _add(self, edition: Edition, device: str, bundle: Path | None, *, current: bool) -> AsyncRecommender:
        if device not in self._workers:
            self._workers[device] = Worker(self._serving, self._observer)
        serving = AsyncRecommender(edition, self._workers[device])
        version, number = _Version(Catalogs(serving), device, bundle), edition.version
        named = self._models.get(edition.model)
        self._put(
            edition.model,
            _Named(number, {number: version}) if named is None else named.having(number, version, current=current),
        )
        self._numbers[edition.model] = max(self._numbers[edition.model], int(number) if number.isdecimal() else 1)
        return serving

    def _put(self, name: str, named: _Named) -> None:
        self._models = self._models | {name: named}

    def _named(self, name: str | None) -> _Named:
        models = self._models
        if name is None and models:
            return next(iter(models.values()))
        if name is None:
            raise UnknownModel("no model is served. Load one: specbeam model load NAME BUNDLE")
        if name not in models:
            raise UnknownModel(f"no model {name!r} is served; there is: {', '.join(models) or 'none'}.")
        return models[name]

    @staticmethod
    def _version(named: _Named, version: str) -> _Version:
        if version not in named.versions:
            model = named.versions[named.current].catalogs.serving.edition.model
            raise UnknownModel(f"no version {version!r} of {model!r} is served; there is: {', '.join(named.versions)}.")
        return named.versions[version]
