# SPDX-License-Identifier: MIT
"""n-step windows: how long they are and what their steps count."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import numpy.typing as npt

from rllib_per.bounds import check_bounds
from rllib_per.replay.fragment import Int64s


class NStep:
    """Windows of k steps: R = Σ_{i<k} γ^i r_{t+i}, then a bootstrap discounted by γ^k.

    k is the number asked for, unless the window ends earlier: at a termination (nothing to
    bootstrap from), at a truncation, a reset row or a gap (bootstrap with the γ^k of the steps that
    there were). Every step of an episode starts a window, the last ones a shorter one.

    Args:
        n_step: Steps, or the inclusive range (shortest, longest) that every draw picks from
            uniformly.
        gamma: γ in [0, 1].

    Raises:
        ValueError, TypeError: An argument is out of range or of another kind.
    """

    def __init__(self, n_step: int | tuple[int, int], gamma: float) -> None:
        bounds = tuple(n_step) if isinstance(n_step, (tuple, list)) else (n_step, n_step)
        if len(bounds) != 2 or not all(
            isinstance(n, Integral) and not isinstance(n, bool) for n in bounds
        ):
            raise TypeError(f"n_step must be an integer or a pair of integers: got {n_step!r}")
        self.shortest, self.longest = map(int, bounds)
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"n_step must be at least 1, and a range ascend: got {n_step!r}")
        check_bounds(gamma=gamma)
        self.gamma = float(gamma)
        self.discounts: npt.NDArray[np.float64] = self.gamma ** np.arange(self.longest + 1.0)

    def draw(self, size: int, rng: np.random.Generator) -> Int64s:
        """(size,) lengths; no random number is used where there is nothing to choose."""
        if self.shortest == self.longest:
            return np.full(size, self.longest)
        return rng.integers(self.shortest, self.longest, size, endpoint=True)
