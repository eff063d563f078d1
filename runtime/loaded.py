"""What serves, loaded once: a bundle's catalog and prompts, and its engines."""

from dataclasses import dataclass, replace
from functools import partial

from ..catalog.items import Catalog
from ..catalog.prompts.encoder import PromptEncoder
from ..catalog.spelling import Spelling
from ..catalog.trie import ItemTrie
from ..engines.base import Engine
from ..engines.bundle.items import Bundle
from ..engines.registry import load_engine, name_and_precision
from .drafting.retrieval import CatalogPool
from .options import Drafting
from .types import ScoringKind


@dataclass(frozen=True, eq=False)
class Loaded:
    """What all recommenders over the same engines share."""

    catalog: Catalog
    trie: ItemTrie
    prompts: PromptEncoder
    target: Engine
    draft: Engine | None = None  # draft, pool: what drafts are guessed by
    pool: CatalogPool | None = None
    max_k: int | None = None  # the longest list that a request may ask for; None: any
    engine: str = "given"  # how errors name the target's
    scoring: ScoringKind = "full"  # that the engines are for: those for full serve both
    end_token: int | None = None  # behind every identifier that is generated
    spelling: Spelling | None = None  # of all catalogs of these engines; None: what this one shows

    @classmethod
    def of(
        cls, bundle: Bundle, items: tuple[Catalog, ItemTrie], engine: str, drafting: Drafting, *, threads: int,
        scoring: ScoringKind = "full", thrifty: bool = False,
    ) -> "Loaded":  # fmt: skip
        """Load a bundle's engines of one name.

        items: the bundle's; drafting: with the drafter of `drafter_for`; scoring, thrifty: see `load_engine`.
        """
        (catalog, trie), pool = items, drafting.opened_pool()
        load = partial(load_engine, bundle, name=engine, threads=threads, scoring=scoring, thrifty=thrifty)
        drafts = drafting.drafter in ("model", "both")
        return cls(
            catalog, trie, bundle.prompts(trie), load("target"), load("draft") if drafts else None,
            None if pool is None else CatalogPool(pool, catalog, trie),
            bundle.manifest.max_top_k, name_and_precision(bundle, "target", engine), scoring,
            bundle.manifest.end_token,
        )  # fmt: skip

    def with_catalog(self, catalog: Catalog) -> "Loaded":
        """The same engines for another catalog, whose identifiers are of tokens that they know.

        Raises `CatalogError` as `Spelling.compile` does, `PromptError` and `PoolError`.
        """
        spelling = self.spelling or Spelling.of(self.catalog, self.trie, self.end_token)
        identifiers = spelling.compile(catalog)
        return replace(
            self, catalog=catalog, trie=identifiers.trie, prompts=self.prompts.of_items(identifiers.tokens),
            pool=None if self.pool is None else CatalogPool(self.pool.pool, catalog, identifiers.trie),
            spelling=spelling,
        )  # fmt: skip
