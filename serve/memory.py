"""What is about to be loaded beside what serves must fit: an estimate, held against what is free now."""

from ..catalog.errors import SpecBeamError
from ..catalog.items import Catalog
from ..engines.bundle.items import LINES_FILE, Bundle
from ..engines.machine.gpus import found_gpus
from ..engines.machine.processors import free_memory
from ..runtime.chosen import Chosen

# Bytes while a catalog is compiled, by what was measured of 100,000 to 300,000 items, and a quarter more.
ITEM, TOKEN = 350, 50
WEIGHTS = 2  # times an engine's files: as they are read, and as a library packs them anew


class NoRoom(SpecBeamError):
    """There is too little memory for it."""


def catalog_bytes(items: int, length: int) -> int:
    """Of a catalog of so many items, of identifiers of so many tokens, and its trie; titles left aside."""
    return items * (ITEM + TOKEN * length)


def check_catalog(catalog: Catalog) -> None:
    """Raise `NoRoom` unless another catalog's trie can be compiled beside the one that serves."""
    titles = len(catalog.titles.texts.data)
    _check(catalog_bytes(len(catalog.item_ids), catalog.length) + titles, "cpu", "the catalog")


def check_model(chosen: Chosen) -> None:
    """Raise `NoRoom` unless the engines that were chosen, and their catalog, can be loaded beside what serves."""
    bundle, manifest = chosen.bundle, chosen.bundle.manifest
    _check(WEIGHTS * _weights(bundle, chosen.engine), device_of(chosen.engine), f"the engine {chosen.engine}")
    if LINES_FILE in manifest.files:  # others' catalogs are mapped
        _check(catalog_bytes(manifest.items, manifest.identifier_length), "cpu", "the model's catalog")


def device_of(engine: str) -> str:
    """Where an engine of this name runs."""
    return "cuda" if "-cuda-" in engine else "cpu"


def _weights(bundle: Bundle, engine: str) -> int:
    """Bytes of an engine's files; those of torch are the bundle's checkpoints."""
    if engine.startswith("torch-"):
        return sum(facts.bytes for name, facts in bundle.manifest.files.items() if "/checkpoint/" in name)
    return sum(facts.bytes for facts in bundle.engine_facts(engine).files.values())


def _check(needed: int, device: str, what: str) -> None:
    gpus = found_gpus().devices if device == "cuda" else ()
    free = (gpus[0].free if gpus else None) if device == "cuda" else free_memory()
    if free is not None and needed > free:
        raise NoRoom(
            f"{what} would take about {needed >> 20} MiB beside what serves, and {free >> 20} MiB are free on the "
            f"{'GPU' if device == 'cuda' else 'machine'}. Unload a model that is kept for rollback, or serve it on a "
            "machine with more memory."
        )
