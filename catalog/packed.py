"""Compressed files, told by their first bytes."""

from .errors import SpecBeamError

_PACKED = {  # how compressed files begin, and what unpacks them
    b"\x1f\x8b": ("gzip", "zcat"), b"\x28\xb5\x2f\xfd": ("zstd", "zstdcat"), b"BZh": ("bzip2", "bzcat"),
    b"\xfd7zXZ\x00": ("xz", "xzcat"), b"PK\x03\x04": ("zip", "unzip -p"),
}  # fmt: skip


def refuse_packed(name: str, head: bytes, error: type[SpecBeamError], command: str = "") -> None:
    """Raise `error` for the beginning of a compressed file. command: what reads the unpacked text from a pipe."""
    for begin, (kind, unpack) in _PACKED.items():
        if head.startswith(begin):
            piped = f" (or: {unpack} {name} | {command})" if command else ""
            raise error(f"{name}: compressed by {kind}; expected text. Unpack it first{piped}.")
