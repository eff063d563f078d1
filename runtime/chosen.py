"""What a recommender is opened with, resolved and checked before an engine is loaded."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..catalog.items import Catalog
from ..catalog.trie import ItemTrie
from ..engines.bundle.items import Bundle
from .arguments import checked_batching, checked_drafting, checked_engine, checked_verification
from .encoding import RequestEncoder
from .loaded import Loaded
from .modes import scoring_of
from .options import Batching, Drafting, EngineChoice, Verification
from .planning.from_options import drafter_for, planning_for
from .planning.kept import Memory
from .planning.policy import Planning
from .types import DrafterKind, Mode


@dataclass(frozen=True, eq=False)
class Chosen:
    """A bundle, and all choices of what serves it."""

    bundle: Bundle
    items: tuple[Catalog, ItemTrie]
    engine: str
    threads: int
    drafting: Drafting  # with its drafter, and its pool opened
    verification: Verification  # with its scoring
    batching: Batching
    planning: Planning
    memory: Memory | None  # of what earlier processes learned; None: nothing is kept

    @classmethod
    def of(
        cls, bundle: str | Path | Bundle, *, engine: EngineChoice | str | None = None,
        drafting: Drafting | DrafterKind | None = None, verification: Verification | Mode | None = None,
        batching: Batching | int | None = None,
    ) -> "Chosen":  # fmt: skip
        """See `Recommender.open`."""
        choice, drafting = checked_engine(engine), checked_drafting(drafting)
        verification, batching = checked_verification(verification), checked_batching(batching)
        pool = drafting.opened_pool()
        bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        name, threads = choice.of(bundle)
        drafter = drafter_for(bundle, drafting.drafter, has_pool=pool is not None)
        drafting, items = replace(drafting, drafter=drafter, pool=pool), bundle.items()
        planned = _planned(bundle, name, items[1], verification, drafting, threads)
        return cls(bundle, items, name, threads, drafting, planned[0], batching, *planned[1:])

    def verifying(self, verification: Verification) -> "Chosen":
        """The same, verified otherwise; raises `OptionError` for what cannot be combined."""
        verification, planning, memory = _planned(
            self.bundle, self.engine, self.items[1], verification, self.drafting, self.threads
        )
        return replace(self, verification=verification, planning=planning, memory=memory)

    def with_items(self, catalog: Catalog, trie: ItemTrie) -> "Chosen":
        """The same for other items; what is learned of them is not kept, as it would pass for the bundle's own."""
        return replace(self, items=(catalog, trie), drafting=replace(self.drafting, keep=False), memory=None)

    def loaded(self) -> Loaded:
        """With the engines."""
        return Loaded.of(
            self.bundle, self.items, self.engine, self.drafting, threads=self.threads,
            scoring=scoring_of(self.verification).kind, thrifty=self.batching.memory is not None,
        )  # fmt: skip

    def encoder(self) -> RequestEncoder:
        """Without them."""
        catalog, trie = self.items
        return RequestEncoder(catalog, trie, self.bundle.prompts(trie), self.bundle.manifest.max_top_k)


def _planned(
    bundle: Bundle, engine: str, trie: ItemTrie, verification: Verification, drafting: Drafting, threads: int
) -> tuple[Verification, Planning, Memory | None]:
    """The verification with its scoring, and what goes by it; drafting: with its drafter."""
    if verification.scoring is None and verification.mode != "sampled":
        verification = replace(verification, scoring=bundle.manifest.scoring)
    planning = planning_for(bundle, engine, trie, verification, drafting, threads=threads)
    return verification, planning, Memory.of(planning, bundle, engine, verification, drafting, threads=threads)
