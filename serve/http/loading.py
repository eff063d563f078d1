"""Models of bundles, warm before the first request."""

from pathlib import Path

from ...catalog.errors import OptionError
from ...engines.bundle.items import Bundle
from ..models import NAME, Models
from ..opening import Opening
from .logs import Log


def named_bundles(words: tuple[str, ...]) -> dict[str, Bundle]:
    """BUNDLE or NAME=BUNDLE, opened; the default name is the folder's. Raises `OptionError` and `BundleError`."""
    found: dict[str, Bundle] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = Path(word).resolve().name, word
        if not NAME.fullmatch(name):
            raise OptionError(f"{name!r} cannot name a model in an address; expected NAME=BUNDLE, such as shop={path}.")
        if name in found:
            raise OptionError(f"two bundles are called {name!r}. Name one: NAME=BUNDLE, such as other={path}.")
        found[name] = Bundle.open(path)
    return found


def load(bundles: dict[str, Bundle], opening: Opening, models: Models, log: Log) -> None:
    """Load all of them, and warm each up."""
    shared = False
    for name, bundle in bundles.items():
        engine, threads = opening.engine.of(bundle)
        if engine.startswith("onnxruntime") and not shared:  # the process is ours: one pool for all sessions
            from ...engines.onnxruntime.threads import share_threads

            share_threads(threads)
            shared = True
        edition = models.load(name, bundle)
        log.write("loaded", model=name, engine=engine, items=len(edition.recommender.catalog.item_ids))
