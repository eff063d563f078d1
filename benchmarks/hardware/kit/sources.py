"""Which pair is measured, and whose histories: looked at before anything runs."""

from pathlib import Path

from specbeam.catalog.errors import BundleError, HistoryError
from specbeam.engines.bundle.items import Bundle

MADE, PUBLIC = "made", "beauty"


def default_pair() -> str:
    """The public pair where it is, else one that is made."""
    return MADE if public_data() is None else PUBLIC


def public_data() -> tuple[Path, Path] | None:
    """The folders of the public data and of the pair that was trained on it, where SPECBEAM_DATA has both."""
    from benchmarks.public import shared_data

    shared = shared_data()
    if shared is None or not (shared / "models" / PUBLIC / "target").is_dir():
        return None
    return shared / "data" / PUBLIC, shared / "models" / PUBLIC


def check_source(pair: str, histories: Path | None) -> None:
    """Raise `SpecBeamError` for a pair or histories that cannot be used, saying what can."""
    if pair == PUBLIC and public_data() is None:
        raise BundleError(
            "The public pair is not here: let SPECBEAM_DATA name the folder that holds its data/ and models/, give a "
            "bundle of your own as --pair, or have one made: --pair made"
        )
    if pair not in (MADE, PUBLIC):
        bundle = Bundle.open(Path(pair))
        if bundle.manifest.draft is None:
            raise BundleError(
                f"{pair} has no draft: its pair is to be measured. Export it with: specbeam export --draft"
            )
    if histories is not None and not histories.is_file():
        raise HistoryError(f"--histories: there is no file {histories}. Expected one that `specbeam infer` reads.")
