"""JSON files that say which schema they follow and prove that they are as they were written."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

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


def check_seal(path: Path, remedy: str) -> None:
    """Raise `BundleError` unless a JSON file is as `sealed` wrote it, whatever it holds."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except DAMAGED as error:
        raise BundleError(f"{path} is damaged: {error}. Write it again with: {remedy}") from error
    found, content["checksum"] = content.get("checksum"), ""
    if found != hashlib.sha256(msgspec.json.encode(content)).hexdigest():
        raise _edited(path, remedy)


def _edited(path: Path, remedy: str) -> BundleError:
    return BundleError(
        f"{path} is damaged, or was edited: its content does not match its checksum. Write it again with: {remedy}"
    )


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
        raise _edited(path, remedy)
    return content
