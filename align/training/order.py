"""What is trained on, and in which order: by (seed, epoch) alone, so that an interrupted run goes on as it was."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

Int64 = NDArray[np.int64]

BUCKET = 16  # batches that are sorted by length together, so that little of a batch is padding


class Samples(Dataset[Any], ABC):
    """A map-style data set that knows how long its samples are and which epoch it is."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """The sample, the same whenever it is asked for in the same epoch."""

    @abstractmethod
    def lengths(self) -> Int64:
        """Length of every sample [N], about: samples of like lengths share a batch."""

    def begin(self, epoch: int) -> None:
        """Take note that an epoch begins."""


class EpochBatches(Sampler[list[int]]):
    """Batches of sample indices: every sample once an epoch, in random order, like lengths together."""

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        self._samples = samples
        self._lengths = samples.lengths()
        self._size = size
        self._seed = seed
        self._epoch = 0

    def begin(self, epoch: int) -> None:
        """Take note that an epoch begins, for the samples, too."""
        self._epoch = epoch
        self._samples.begin(epoch)

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(len(self._lengths))
        for first in range(0, len(order), self._size * BUCKET):
            bucket = order[first : first + self._size * BUCKET]
            bucket = bucket[np.argsort(self._lengths[bucket], kind="stable")]
            batches = np.split(bucket, range(self._size, len(bucket), self._size))
            for batch in rng.permutation(len(batches)).tolist():
                yield batches[batch].tolist()
