"""JSON files that say which schema they follow and prove that they are as they were written."""

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from ..catalog.bounds import DAMAGED
from ..catalog.errors import BundleError
from ..catalog.files import Frozen

SCHEMA_VERSION = 2  # of manifests


class Sealed(Frozen, frozen=True):
    """A JSON file that says which schema it follows and proves that it is as it was written; see `sealed`."""

    schema_version: int
    checksum: str = ""


T = TypeVar("T", bound=Sealed)


def to_json(value: object) -> bytes:
    """Indented JSON, for people to read as well."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def sealed(content: Sealed) -> bytes:
    """The file's JSON, the SHA-256 of its content (compact, without checksum) written into it.

    Raises `msgspec.ValidationError` for what would not be read again, such as a number that is none (JSON has no NaN).
    """
    data = to_json(replace(content, checksum=_checksum(content)))
    msgspec.json.decode(data, type=type(content))
    return data


def _checksum(content: Sealed) -> str:
    return hashlib.sha256(msgspec.json.encode(replace(content, checksum=""))).hexdigest()


class _Versioned(msgspec.Struct):
    schema_version: int


def read_sealed(path: Path, kind: type[T], remedy: str, schema: int = SCHEMA_VERSION) -> T:
    """A JSON file whose schema version, the first thing looked at, is ours, and whose checksum is right."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    try:
        data.decode("utf-8")  # msgspec does not look at the encoding of what it skips
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version != schema:
            raise BundleError(
                f"{path} has schema version {version}, this SpecBeam reads {schema}. Write it again with: {remedy}"
            )
        content = msgspec.json.decode(data, type=kind)
    except DAMAGED as error:
        raise BundleError(f"{path} is damaged: {error}. Write it again with: {remedy}") from error
    if content.checksum != _checksum(content):
        raise BundleError(
            f"{path} is damaged, or was edited: its content does not match its checksum. Write it again with: {remedy}"
        )
    return content
