"""The catalogs of one version of a model: each compiled beside the one that serves, and put in its place."""

from threading import Lock
from typing import final

from ..catalog.errors import SpecBeamError
from ..catalog.updates import CatalogUpdate
from .editions import Edition
from .memory import check_catalog
from .opening import warm_up
from .recommender import AsyncRecommender

KEPT = 2  # that served before, to go back to; of models as well as of catalogs


class NothingToRollBack(SpecBeamError):
    """No earlier catalog, or model, is kept."""


@final
class Catalogs:
    """One version's catalogs over the same engines. Safe to share between threads: changes wait for each other.

    A bundle is never written: an update lasts as long as its process.
    """

    def __init__(self, serving: AsyncRecommender) -> None:
        self.serving, self._lock = serving, Lock()
        self._earlier: tuple[Edition, ...] = ()
        first = serving.edition.catalog
        self._last = int(first) if first.isdecimal() else 1

    @property
    def kept(self) -> list[str]:
        """The versions of earlier catalogs, the one that served last at the end."""
        return [edition.catalog for edition in self._earlier]

    def update(self, update: CatalogUpdate) -> Edition:
        """Serve new requests by the catalog that comes of an update; those that wait or run keep theirs.

        Raises `CatalogError` for an update that cannot be (see `CatalogUpdate.of` and `Spelling.compile`), `NoRoom`,
        `PromptError`, `PoolError`, and `RequestError` where a first list cannot be made: nothing is changed then.
        """
        with self._lock:
            before = self.serving.edition
            catalog = update.of(before.recommender.catalog)
            check_catalog(catalog)
            recommender = before.recommender.with_catalog(catalog)
            warm_up(recommender, 1, 1)
            self._last += 1
            after = Edition(before.model, before.version, str(self._last), recommender)
            self.serving.use(after)
            self._earlier = (*self._earlier, before)[-KEPT:]
            return after

    def rollback(self) -> Edition:
        """Serve new requests by the catalog before this one, which is then forgotten.

        Raises `NothingToRollBack`.
        """
        with self._lock:
            if not self._earlier:
                raise NothingToRollBack(
                    f"no catalog of {self.serving.edition.model!r} is kept from before version "
                    f"{self.serving.edition.catalog}; the last {KEPT} are. Update it to the one you want."
                )
            *earlier, before = self._earlier
            self.serving.use(before)
            self._earlier = tuple(earlier)
            return before
