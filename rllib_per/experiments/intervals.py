# SPDX-License-Identifier: MIT
"""Confidence intervals over seeds: Student's t, which takes their results for normally distributed.

Seeds are few, and a bootstrap of three values is no more than their range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rllib_per.arrays import Float64s

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and half the width of its confidence interval; None for a single seed."""

    mean: float
    half_width: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Interval:
        """Mean and t interval of at least one value."""
        array = np.asarray(list(values), np.float64)
        half_width = half_widths(array[:, None])
        return cls(float(array.mean()), None if half_width is None else float(half_width[0]))

    def __str__(self) -> str:
        return self.text(1)

    def text(self, decimals: int) -> str:
        """`mean ± half_width`, both with so many decimals."""
        parts = (self.mean,) if self.half_width is None else (self.mean, self.half_width)
        return " ± ".join(f"{part:,.{decimals}f}" for part in parts)


def half_widths(values: Float64s) -> Float64s | None:
    """(seeds, points) values: half the width of each point's interval; None for one seed."""
    num_seeds = len(values)
    if num_seeds < 2:
        return None
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, num_seeds - 1)
    widths: Float64s = quantile * values.std(axis=0, ddof=1) / math.sqrt(num_seeds)
    return widths
