"""JSON files that say which schema they follow and prove that they are as they were written."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from ... import __version__
from ...catalog.bounds import DAMAGED
from ...catalog.errors import BundleError
from ...catalog.files import Frozen

SCHEMA_VERSION = 2  # of manifests
FORMER = {"specrec_version": "specbeam_version"}  # names of fields, since then changed


class Sealed(Frozen, frozen=True):
    """A JSON file that says which schema it follows and proves that it is as it was written; see `sealed`."""

    schema_version: int
    checksum: str = ""


T = TypeVar("T", bound=Sealed)


def to_json(value: object) -> bytes:
    """Indented JSON, for people to read as well."""
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    except UnicodeEncodeError:  # a file's name need not be text: JSON writes the rest of it by escapes
        text = json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace") + b"\n"


def sealed(content: Sealed) -> bytes:
    """The file's JSON, the SHA-256 of its content (compact, without checksum) written into it.

    Raises `msgspec.ValidationError` for what would not be read again, such as a number that is none (JSON has no NaN).
    """
    data = to_json(replace(content, checksum=_checksum(content)))
    msgspec.json.decode(data, type=type(content))
    return data


def _checksum(content: Sealed) -> str:
    return hashlib.sha256(msgspec.json.encode(replace(content, checksum=""))).hexdigest()


def _whole(said: dict[str, Any]) -> bool:
    """Whether what a file says is what it was sealed with."""
    try:
        return said.get("checksum") == hashlib.sha256(msgspec.json.encode({**said, "checksum": ""})).hexdigest()
    except RecursionError:  # nested a level deeper than can be written
        return False


def check_seal(path: Path, remedy: str) -> None:
    """Raise `BundleError` unless a JSON file is as `sealed` wrote it, whatever it holds."""
    try:
        said = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except DAMAGED as error:
        raise BundleError(f"{path} is damaged: {error}. Write it again with: {remedy}") from error
    if not _whole(said):
        raise _edited(path, f"Write it again with: {remedy}")


def _edited(path: Path, again: str) -> BundleError:
    return BundleError(f"{path} is damaged, or was edited: its content does not match its checksum. {again}")


class _Versioned(msgspec.Struct):
    schema_version: int
    specbeam_version: Any = None  # that wrote it; not all files say, and a later schema may say anything


def read_sealed(path: Path, kind: type[T], remedy: str, schema: int = SCHEMA_VERSION) -> T:
    """A JSON file whose schema version, the first thing looked at, is ours, and whose checksum is right.

    remedy: the command that writes it again. The checksum is that of what the file says, not of what is made of it:
    fields that have defaults may be added, and a file from before has none of them and is sound. Raises `BundleError`.
    """
    again = f"Write it again with: {remedy}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    said: dict[str, Any] = {}
    try:
        data.decode("utf-8")  # msgspec does not look at the encoding of what it skips
        written = msgspec.json.decode(data, type=_Versioned)
        if written.schema_version != schema:
            raise BundleError(f"{path} has {_other(written, schema)}: {remedy}")
        said = msgspec.json.decode(data, type=dict[str, Any])
        content = msgspec.convert({FORMER.get(name, name): value for name, value in said.items()}, kind)
    except DAMAGED as error:
        if _whole(said):
            raise BundleError(
                f"{path} is whole, but not as this SpecBeam ({__version__}) writes schema {schema}: {error}. Another "
                f"version wrote it so, or another program. {again}"
            ) from error
        raise BundleError(f"{path} is damaged: {error}. {again}") from error
    if not _whole(said):
        raise _edited(path, again)
    return content


def _other(written: _Versioned, schema: int) -> str:
    """What is said of a file of another schema, up to the command that writes it again."""
    if written.schema_version < schema:
        return f"schema version {written.schema_version}, this SpecBeam reads {schema}. Write it again with"
    by = f" ({written.specbeam_version})" if isinstance(written.specbeam_version, str) else ""
    return (
        f"schema version {written.schema_version}, of a later SpecBeam{by}; this one ({__version__}) reads {schema}. "
        "Install the later one, or write it again for this one with"
    )
