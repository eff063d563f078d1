"""Rows of whole numbers in order: what the trie, and whatever compares identifiers, is made from."""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
WORD = 64  # bits of a key


def row_order(table: NDArray[np.integer], most: int) -> Int64:
    """The rows' numbers [I] in ascending order of the rows [I, L], of numbers from -1 to `most`; equal ones by number.

    As many columns as fit are packed into one key, so that few sorts will do.
    """
    bits = (most + 1).bit_length()
    each = max(1, WORD // bits)
    keys = []
    for first in range(0, table.shape[1], each):
        key = np.zeros(len(table), np.uint64)
        for column in table[:, first : first + each].T:
            key <<= np.uint64(bits)
            key |= (column + 1).astype(np.uint64)
        keys.append(key)
    return np.argsort(keys[0], kind="stable") if len(keys) == 1 else np.lexsort(keys[::-1])


def row_numbers(table: NDArray[np.integer], most: int) -> tuple[Int64, Int64]:
    """A number [I] for every row, the same for equal rows alone; and where each stands first [distinct], ascending."""
    order = row_order(table, most)
    new = np.ones(len(order), bool)
    new[1:] = False
    for column in table.T:
        sorted_column = column[order]
        new[1:] |= sorted_column[1:] != sorted_column[:-1]
    first = order[new]  # the sort is stable: the first of each
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbers = np.empty(len(order), np.int64)
    numbers[order] = rank[np.cumsum(new) - 1]
    return numbers, np.sort(first)


def is_permutation(numbers: NDArray[np.integer], size: int) -> bool:
    """Whether the numbers [n] are 0 to `size` - 1, each once, in any order."""
    if len(numbers) != size or not size or numbers.min() < 0 or numbers.max() >= size:
        return len(numbers) == size == 0
    seen = np.zeros(size, bool)
    seen[numbers] = True
    return bool(seen.all())
