"""What is asked of lists, as `infer` is told: how long, of which items, for whom, and what of them is ranked again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.errors import OptionError
from .long_run import numbered, pool_files

if TYPE_CHECKING:
    from ..catalog.items import Catalog
    from ..pools.items.pool import ItemPool
    from ..runtime import Drafting
    from ..runtime.runs.inference import ListOptions
    from ..runtime.runs.item_lists import ItemList


@dataclass(frozen=True)
class Lists:
    """What is asked for: the lists, and how they are looked at again."""

    top_k: int
    exclude_history: bool
    allow: Path | None
    deny: Path | None
    stats: bool
    when_empty: str
    popular: Path | None
    verify_sample: float | None
    verify_overlap: float | None

    @property
    def files(self) -> list[Path]:
        """The files of item ids."""
        return [*filter(None, (self.allow, self.deny, self.popular))]

    def read(self, histories: Sequence[Any], drafting: "Drafting") -> dict[str, Any]:
        """All files that lists depend on, by what they are for; histories: paths, or files in object storage."""
        own = {"allow": self.allow, "deny": self.deny, "popular": self.popular}
        return {**numbered("histories", histories), **own, **pool_files(drafting.pool)}

    def check(self, drafting: "Drafting") -> None:
        """Raise `OptionError` for options that mean nothing together."""
        if self.popular is not None and self.when_empty != "popular":
            raise OptionError("--popular: for --when-empty popular only. Leave it out, or add that.")
        if self.when_empty == "popular" and self.popular is None and drafting.pool is None:
            raise OptionError("--when-empty popular: by what? Pass --popular FILE, or a --pool of items.")
        if self.verify_overlap is not None and self.verify_sample is None:
            raise OptionError("--verify-overlap: for --verify-sample only. Leave it out, or add that.")

    def wanted(
        self, catalog: "Catalog", allow: "ItemList | None", deny: "ItemList | None", pool: "ItemPool | None",
        warn: Callable[[str], None],
    ) -> "ListOptions":  # fmt: skip
        """What every request gets; allow, deny: what the files of these names hold."""
        from ..runtime.runs.inference import ListOptions
        from ..runtime.runs.item_lists import filter_of
        from ..runtime.runs.popular import PopularItems

        allowed, bestsellers = filter_of(allow, deny, catalog, warn=warn), None
        if self.when_empty == "popular" and self.popular is not None:
            bestsellers = PopularItems.read(self.popular, catalog, warn=warn)
        elif self.when_empty == "popular":
            assert pool is not None
            bestsellers = PopularItems.of_pool(pool, catalog)
        return ListOptions(self.top_k, allowed, self.exclude_history, self.stats, bestsellers)
