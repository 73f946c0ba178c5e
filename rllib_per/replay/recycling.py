# SPDX-License-Identifier: MIT
"""Memory of batches, used again once nobody holds the batch any more."""

from __future__ import annotations

import sys
from collections import deque

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Array

# The system zeroes every fresh page, which for large arrays takes as long as filling them does.
_WORTH_KEEPING_BYTES = 1 << 18
_MOST_KEPT = 8
# What refers to an array in `__call__`: the deque, the loop's variable, getrefcount's argument.
_OWN_REFERENCES = 3


class RecyclingAllocator:
    """Makes arrays as np.empty does, from memory that it gave out before where that is free.

    An array is free when nothing but this allocator refers to it: neither a view of it, nor a
    tensor on its memory. At most eight arrays are kept, some batches. Not thread-safe.
    """

    def __init__(self) -> None:
        self._arrays: deque[Array] = deque(maxlen=_MOST_KEPT)

    def __call__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        for array in self._arrays:
            if (
                sys.getrefcount(array) == _OWN_REFERENCES
                and array.shape == shape
                and array.dtype == dtype
                and array.flags.writeable
                and array.flags.c_contiguous
            ):
                return array
        array = np.empty(shape, dtype)
        if array.nbytes >= _WORTH_KEEPING_BYTES:
            self._arrays.append(array)
        return array
