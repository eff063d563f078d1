"""The engine of a bundle that serves where none is named, so that another one beside it changes nothing."""

from contextlib import suppress
from pathlib import Path

from ...catalog.errors import BundleError
from ...catalog.files import whole_file
from .model import ModelBundle
from .sealed import Sealed, read_sealed, sealed

DEFAULT_SCHEMA = 1
DEFAULT_FILE = "engines/default.json"


class DefaultEngine(Sealed, frozen=True, kw_only=True):
    """The file `DEFAULT_FILE`."""

    engine: str  # a folder beside it


def default_engine(bundle: ModelBundle) -> str:
    """The engine to use when none is named: the only one, or else the one on record, which is the first built.

    Raises `BundleError` where there is none, and where several are there and the one on record is not.
    """
    built = bundle.engine_names()
    if not built:
        raise BundleError(f"{bundle.path} has no engine yet. Build one with: specbeam build-engine {bundle.path}")
    if len(built) == 1:
        return built[0]
    recorded = recorded_default(bundle)
    if recorded in built:
        return recorded
    which = "none is on record as" if recorded is None else f"{recorded}, which is gone, is on record as"
    raise BundleError(
        f"{bundle.path} has several engines, and {which} its default: {', '.join(built)}. Choose one with --engine "
        f"NAME, or make one of them the default: {choosing(bundle)}"
    )


def recorded_default(bundle: ModelBundle) -> str | None:
    """The engine on record, be it there or not; None: there is no record. Raises `BundleError` for a damaged one."""
    if not _file(bundle).is_file():
        return None
    return read_sealed(_file(bundle), DefaultEngine, choosing(bundle), DEFAULT_SCHEMA).engine


def choosing(bundle: ModelBundle) -> str:
    """The command that puts an engine on record."""
    names = bundle.engine_names()
    return f"{bundle.build(names[0]) if names else f'specbeam build-engine {bundle.path}'} --default"


def found_default(bundle: ModelBundle) -> str | None:
    """As `default_engine`; None where one has to be named."""
    with suppress(BundleError):
        return default_engine(bundle)
    return None


def default_fault(bundle: ModelBundle) -> str | None:
    """What is wrong with the record of the default engine, if there is one."""
    try:
        recorded_default(bundle)
    except BundleError as error:
        return str(error)
    return None


def set_default(bundle: ModelBundle, name: str) -> None:
    """Make an engine that is built the bundle's default. Raises `BundleError` where it is not, or is damaged."""
    bundle.engine_facts(name)
    content = sealed(DefaultEngine(schema_version=DEFAULT_SCHEMA, engine=name))
    if not _file(bundle).is_file() or _file(bundle).read_bytes() != content:
        with whole_file(_file(bundle), replace=True) as file:
            file.write(content)


def keep_default(bundle: ModelBundle) -> None:
    """Put on record which engine serves by default, if one does, before another one is beside it."""
    with suppress(BundleError):  # a damaged engine is told of where it is asked for
        if (name := found_default(bundle)) is not None:
            set_default(bundle, name)


def _file(bundle: ModelBundle) -> Path:
    return bundle.path / DEFAULT_FILE
