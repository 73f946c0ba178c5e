# SPDX-License-Identifier: MIT
"""What the drop-in buffer's columns and windows look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

DEFAULT_GAMMA = 0.99  # of RLlib's own `sample`

Item = tuple[tuple[int, ...], str]  # the shape and dtype of one row of a column


@dataclass(frozen=True)
class Windows:
    """Which n-step windows the buffer is built for."""

    n_step: int | tuple[int, int]
    gamma: float

    @classmethod
    def of(cls, n_step: Any, gamma: float | None) -> Windows:
        """With RLlib's defaults for what is None; a list of two is a range, as in JSON."""
        steps = 1 if n_step is None else n_step
        return cls(
            tuple(steps) if isinstance(steps, (list, tuple)) else steps,
            DEFAULT_GAMMA if gamma is None else gamma,
        )


@dataclass(frozen=True)
class Space:
    """What EpisodeFragmenter reads of a space."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def item_of(name: str, values: Any) -> Item:
    """The shape and dtype of one item of a column."""
    array = np.asarray(values if not isinstance(values, (dict, tuple)) else None)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be plain arrays of numbers: got {type(values).__name__}; flatten nested "
            "observations by an env-to-module connector, leave the module's nested outputs out by "
            '"keep_extra_model_outputs": False'
        )
    return array.shape[1:], array.dtype.str
