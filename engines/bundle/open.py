"""Opening a bundle of either kind."""

from pathlib import Path

from ...catalog import checks
from .items import Bundle
from .model import bundle_kind
from .texts import TextBundle


def open_bundle(path: str | Path) -> Bundle | TextBundle:
    """A bundle of either kind."""
    path = checks.path(path, "bundle")
    return Bundle.open(path) if bundle_kind(path) == "items" else TextBundle.open(path)
