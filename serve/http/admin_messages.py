"""What is asked of the admin interface, and what it answers: JSON of these."""

import msgspec

from ...catalog.files import Frozen
from ...catalog.updates import CatalogUpdate
from ..editions import Edition
from ..models import VersionStatus


class Load(Frozen, frozen=True):
    """Load a bundle as a model's next version."""

    model: str
    bundle: str  # a path on this host
    engine: str | None = None


class Which(Frozen, frozen=True):
    """A model, and one version of it."""

    model: str | None = None  # None: the first one
    version: str | None = None  # None: the one that serves


class Switch(Frozen, frozen=True):
    """Serve by another version."""

    model: str
    version: str


class Unload(Frozen, frozen=True):
    """Serve a version no more; None: the whole model."""

    model: str
    version: str | None = None


class Update(Frozen, frozen=True):
    """Change a catalog, or replace it; model, version: as of `Which`."""

    update: CatalogUpdate
    model: str | None = None
    version: str | None = None


class Status(msgspec.Struct, frozen=True):
    """All that is loaded."""

    models: list[VersionStatus]


class Changed(msgspec.Struct, frozen=True):
    """What there is now."""

    model: str
    version: str
    catalog: str
    items: int

    @classmethod
    def of(cls, edition: Edition) -> "Changed":
        """An edition in words."""
        items = len(edition.recommender.catalog.item_ids)
        return cls(edition.model, edition.version, edition.catalog, items)


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why nothing was changed."""

    error: str
    items: tuple[tuple[str, tuple[str, ...]], ...] = ()  # of tokens that the model does not know: item, tokens
