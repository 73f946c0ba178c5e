# SPDX-License-Identifier: MIT
"""td_error -> priority -> mass (Schaul et al. 2016)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Float64s
from rllib_per.settings.replay import Prioritized
from rllib_per.settings.rules import check

# A priority beyond float32 is as good as infinite, and one below 1e-75 as good as 1e-75: every
# power up to alpha = 4, and the sum of 2^31 of them, is a float64, and none is 0 (decision 0018).
LARGEST_PRIORITY = float(np.finfo(np.float32).max)
SMALLEST_PRIORITY = 1e-75


@dataclass(frozen=True)
class PriorityRule:
    """How TD errors become priorities, and priorities masses.

    Attributes:
        alpha: mass = priority^alpha; 0 draws uniformly.
        epsilon: Added to every priority, so that a TD error of 0 can still be drawn.
        kind: "absolute": |δ| + ε. "huber": δ²/2 where |δ| <= 1, else |δ| - 1/2, + ε. "clipped":
            |δ| + ε, at most `clip`.
        clip: The bound of "clipped".

    Raises:
        ValueError: A value is out of range.
    """

    alpha: float
    epsilon: float
    kind: str = Prioritized.priority
    clip: float = Prioritized.priority_clip

    def __post_init__(self) -> None:
        check(
            Prioritized,
            alpha=self.alpha,
            priority_epsilon=self.epsilon,
            priority=self.kind,
            priority_clip=self.clip,
        )
        if self.alpha > 1.0:
            warnings.warn(
                f"alpha={self.alpha} exceeds 1: few transitions get almost all draws",
                stacklevel=4,
            )

    def with_alpha(self, alpha: float) -> PriorityRule:
        """The same with another exponent."""
        return replace(self, alpha=alpha)

    def priorities(self, td_errors: npt.NDArray[Any]) -> Float64s:
        """(B,) float64; not finite exactly where the TD error is not, 0 only where it and ε are."""
        magnitude: Float64s = np.abs(td_errors, dtype=np.float64)
        if self.kind == "huber":
            small = np.minimum(magnitude, 1.0)
            magnitude = small * (magnitude - 0.5 * small)
        magnitude += self.epsilon
        if self.kind == "clipped":
            # A clip would turn an infinite TD error into an ordinary priority.
            finite = magnitude <= LARGEST_PRIORITY
            magnitude = np.where(finite, np.minimum(magnitude, self.clip), magnitude)
        if self.epsilon < SMALLEST_PRIORITY or self.clip < SMALLEST_PRIORITY:
            floor = SMALLEST_PRIORITY if self.epsilon else np.where(td_errors, SMALLEST_PRIORITY, 0)
            magnitude = np.maximum(magnitude, floor)
        return magnitude

    def masses(self, priorities: Float64s) -> Float64s:
        """(B,) priority^alpha, 0 only for 0; 0^0 is 1: with alpha 0 all transitions count the same.

        Args:
            priorities: 0, or from `SMALLEST_PRIORITY` to `LARGEST_PRIORITY`.
        """
        masses: Float64s = np.power(priorities, self.alpha)
        return masses
