"""A bundle's engines, loaded once, and what serves requests with them: our searches and `generate`."""

import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import msgspec
import numpy as np

from .. import __version__
from ..catalog.errors import BundleError, EngineError
from ..catalog.extras import install
from ..catalog.items import Catalog
from ..catalog.trie import ItemTrie
from ..engines.base import Engine
from ..engines.bundle.items import Bundle
from ..engines.installed import backend_version
from ..engines.machine.processors import available_threads, processor
from ..engines.registry import chosen_engine, chosen_threads, load_engine, name_and_precision
from ..pools.items.pool import ItemPool
from ..runtime import Recommender
from ..runtime.drafting.retrieval import CatalogPool
from ..runtime.planning.choose import drafter_for, planning_for
from ..runtime.recommender import check_k
from ..runtime.types import DrafterKind, Int64
from .settings import Search, Settings, searches_of

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
    catalog: Catalog
    trie: ItemTrie
    target: Engine
    drafter: DrafterKind | None
    draft: Engine | None
    pool: CatalogPool | None

    @classmethod
    def open(cls, bundle: Bundle, settings: Settings) -> "Bench":
        """Load the engines. Raises `OptionError` first where the bundle cannot do what the settings ask for."""
        manifest = bundle.manifest
        for k in settings.top_k:
            check_k(k, manifest.max_top_k)
        drafter = drafter_for(bundle, settings.drafter, has_pool=settings.pool is not None)
        engine, threads = chosen_engine(bundle, settings.engine), chosen_threads(settings.threads)
        searches = searches_of(
            settings, manifest.scoring, has_draft=drafter not in (None, "none"),
            planned=drafter != "none" and not engine.startswith("torch-"),
        )  # fmt: skip
        catalog, trie = bundle.items()
        pool = None if settings.pool is None else CatalogPool(ItemPool.open(settings.pool), catalog, trie)
        target = load_engine(bundle, "target", engine, threads=threads)
        draft = load_engine(bundle, "draft", engine, threads=threads) if drafter in ("model", "both") else None
        return cls(bundle, settings, searches, engine, threads, catalog, trie, target, drafter, draft, pool)

    def recommender(self, search: Search) -> Recommender:
        """One search over the engines."""
        plain = search.drafting == "nothing"
        planning = planning_for(
            self.bundle, self.engine, self.trie, search.verification, threads=self.threads,
            drafter="none" if plain else self.drafter, speculation=None if plain else search.drafting,
            shape=search.shape, pool=None if plain or self.pool is None else self.pool.pool,
        )  # fmt: skip
        return Recommender(
            self.catalog, self.trie, self.bundle.prompts(self.trie), self.target, None if plain else self.draft,
            planning=planning, pool=None if plain else self.pool, verification=search.verification,
            batch_size=self.settings.batch_size, max_k=self.bundle.manifest.max_top_k, reuse=search.rule == "reuse",
            engine=name_and_precision(self.bundle, "target", self.engine),
        )  # fmt: skip

    def generate(self) -> Generate | str:
        """`transformers` `generate` over the bundle's checkpoint with as many threads, or why it cannot be had."""
        try:
            from ..engines.torch import torch_threads
            from .generate import TrieGenerate

            device = "cuda" if "-cuda-" in self.engine else "cpu"
            scoring = self.settings.scoring or self.bundle.manifest.scoring
            generate = TrieGenerate.open(self.bundle, device=device, scoring=scoring)
        except ModuleNotFoundError as error:
            return f"{error.name} is not installed; run: {install('export')}"
        except (BundleError, EngineError, ValueError) as error:
            return str(error)

        def run(prompt: Int64, k: int) -> list[tuple[int, float]]:
            with torch_threads(self.threads):
                return generate(prompt, k)

        return run

    def setup(self, load: float | None) -> Setup:
        """What the figures are of; load: of the machine when timing began."""
        manifest, backend = self.bundle.manifest, self.engine.partition("-")[0]
        versions = {"specbeam": __version__, "python": platform.python_version(), "numpy": np.__version__}
        with suppress(PackageNotFoundError):
            versions |= {name: version(name) for name in ("torch", "transformers")}
        return Setup(
            str(self.bundle.path), manifest.checksum, self.engine, self.threads, manifest.target.parameters,
            manifest.draft.parameters if manifest.draft else None, self.drafter,
            None if self.pool is None else self.pool.pool.checksum, manifest.identifier_length,
            versions | {backend: backend_version(backend)}, platform.platform(), processor(),
            available_threads(), load,
        )  # fmt: skip
