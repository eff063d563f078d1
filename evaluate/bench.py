"""A bundle's engines, loaded once, and what serves requests with them: our searches and `generate`."""

import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from .. import __version__
from ..catalog.errors import BundleError, EngineError
from ..catalog.extras import install
from ..engines.bundle.items import Bundle
from ..engines.bundle.names import EngineName
from ..engines.installed import backend_version
from ..engines.machine.processors import available_threads, processor
from ..runtime import Drafting, Recommender
from ..runtime.encoding import check_k
from ..runtime.loaded import Loaded
from ..runtime.planning.from_options import drafter_for, planning_for
from ..runtime.types import DrafterKind, Int64, ScoringKind
from .settings import Search, Settings, searches_of

if TYPE_CHECKING:
    from .generate import TrieGenerate

Generate = Callable[[Int64, int], list[tuple[int, float]]]  # prompt [P] and K in, ranked leaves and scores out


class Setup(msgspec.Struct, frozen=True):
    """What was measured, and where."""

    bundle: str
    sha256: str  # the manifest's, which holds those of all files
    engine: str
    threads: int
    target_parameters: int
    draft_parameters: int | None
    drafter: DrafterKind | None
    pool: str | None  # its checksum
    identifier_length: int  # L
    versions: dict[str, str]
    machine: str
    processor: str
    processors: int  # that this process may use
    load: float | None  # processes that wanted one when timing began (a minute's mean); None: nothing was timed


@dataclass(frozen=True, eq=False)
class Bench:
    """See `open`."""

    bundle: Bundle
    settings: Settings
    searches: tuple[Search, ...]
    engine: str
    threads: int
    drafting: Drafting  # with an opened pool; its drafter None: there is nothing to draft by
    loaded: Loaded

    @classmethod
    def open(cls, bundle: Bundle, settings: Settings) -> "Bench":
        """Load the engines. Raises `OptionError` first where the bundle cannot do what the settings ask for."""
        manifest = bundle.manifest
        for k in settings.top_k:
            check_k(k, manifest.max_top_k)
        given = settings.drafting
        drafter = drafter_for(bundle, given.drafter, has_pool=given.pool is not None)
        engine, threads = settings.engine.of(bundle)
        searches = searches_of(
            settings, manifest.scoring, has_draft=drafter not in (None, "none"),
            planned=drafter != "none" and bundle.is_measured(engine),
        )  # fmt: skip
        items = bundle.items()
        drafting = Drafting(drafter, given.opened_pool())
        scoring: ScoringKind = "full" if any(search.scoring == "full" for search in searches) else "constrained"
        loaded = Loaded.of(bundle, items, engine, drafting, threads=threads, scoring=scoring)
        return cls(bundle, settings, searches, engine, threads, drafting, loaded)

    def recommender(self, search: Search) -> Recommender:
        """One search over the engines."""
        drafting, loaded = Drafting("none"), replace(self.loaded, draft=None, pool=None)
        if search.drafting != "nothing":
            drafting = replace(self.drafting, speculation=search.drafting, shape=search.shape)
            loaded = self.loaded
        planning = planning_for(
            self.bundle, self.engine, loaded.trie, search.verification, drafting, threads=self.threads
        )
        return Recommender(
            loaded, planning=planning, verification=search.verification, batching=self.settings.batching,
            reuse=search.rule == "reuse",
        )  # fmt: skip

    def checkpoint(self) -> "TrieGenerate | str":
        """The bundle's checkpoint under `transformers` `generate`, or why it cannot be had."""
        try:
            from .generate import TrieGenerate

            device = "cuda" if "-cuda-" in self.engine else "cpu"
            scoring = self.settings.scoring or self.bundle.manifest.scoring
            return TrieGenerate.open(self.bundle, device=device, scoring=scoring)
        except ModuleNotFoundError as error:
            return f"{error.name} is not installed; run: {install('export')}"
        except (BundleError, EngineError, ValueError) as error:
            return str(error)

    def generate(self) -> Generate | str:
        """`generate` with as many threads, or why it cannot be had."""
        checkpoint = self.checkpoint()
        if isinstance(checkpoint, str):
            return checkpoint
        from ..engines.torch import torch_threads

        def run(prompt: Int64, k: int) -> list[tuple[int, float]]:
            with torch_threads(self.threads):
                return checkpoint(prompt, k)

        return run

    def setup(self, load: float | None) -> Setup:
        """What the figures are of; load: of the machine when timing began."""
        manifest, backend = self.bundle.manifest, EngineName.of(self.engine).backend
        versions = {"specbeam": __version__, "python": platform.python_version(), "numpy": np.__version__}
        with suppress(PackageNotFoundError):
            versions |= {name: version(name) for name in ("torch", "transformers")}
        return Setup(
            str(self.bundle.path), manifest.checksum, self.engine, self.threads, manifest.target.parameters,
            manifest.draft.parameters if manifest.draft else None, self.drafting.drafter,
            None if self.loaded.pool is None else self.loaded.pool.pool.checksum, manifest.identifier_length,
            versions | {backend: backend_version(backend)}, platform.platform(), processor(),
            available_threads(), load,
        )  # fmt: skip
