"""Bundles and engines edited."""

from pathlib import Path


def flip(path: Path, bits: int = 1, at: float = 0.5) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= bits
    path.write_bytes(data)
