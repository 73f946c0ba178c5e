# SPDX-License-Identifier: MIT
"""Types of NumPy arrays, by dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]

# Makes an array of a shape and a dtype, as `numpy.empty` does.
Allocator = Callable[[tuple[int, ...], npt.DTypeLike], Array]
