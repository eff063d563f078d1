"""A 64-bit hash of integers by NumPy: the same on every machine, in every process, for every batch."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: UInt64) -> UInt64:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(bits: UInt64) -> NDArray[np.float64]:
    """Hashes as numbers between 0 and 1, both excluded; same shape."""
    inside: NDArray[np.float64] = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    return inside


def text_key(text: str) -> int:
    """64 bits of a text (BLAKE2b; half of a surrogate pair counts as what it is)."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
