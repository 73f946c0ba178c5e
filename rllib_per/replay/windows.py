# SPDX-License-Identifier: MIT
"""N-step windows: how long they are, and what they need of the rows behind and ahead of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Allocator, Float32s, Int64s
from rllib_per.replay._ring import Ring
from rllib_per.settings.replay import TransitionSettings
from rllib_per.settings.rules import check

_INT64 = np.dtype(np.int64)
_FLOAT32 = np.dtype(np.float32)


class Windows(NamedTuple):
    """B of them: what their rewards add up to, and where their frames are.

    Attributes:
        returns: (B,) n-step returns.
        discounts: (B,) γ^k of the bootstrap, 0 behind a termination.
        obs_slots: (B * stack,), the frames of the first observation, oldest first; -1: padding.
        next_obs_slots: The same of the last.
    """

    returns: Float32s
    discounts: Float32s
    obs_slots: Int64s
    next_obs_slots: Int64s


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
        self.shortest, self.longest = range_of_steps(n_step)
        check(TransitionSettings, gamma=gamma)
        self.gamma = float(gamma)
        self.discounts: npt.NDArray[np.float64] = self.gamma ** np.arange(self.longest + 1.0)


def range_of_steps(n_step: Any) -> tuple[int, int]:
    """The shortest and the longest window.

    Raises:
        ValueError, TypeError: It is neither an integer >= 1 nor a range of them.
    """
    check(TransitionSettings, n_step=n_step)
    shortest, longest = n_step if isinstance(n_step, (tuple, list)) else (n_step, n_step)
    return int(shortest), int(longest)


class NStepWindow:
    """What is drawn: a start row, and the rows that have to be there before it can be.

    Args:
        n_step: How many there are.
        stack: Frames of an observation.
        repeats_padding: Whether an episode's first frame stands in for those before it.

    Attributes:
        behind: Rows before the start row that its frames stack.
        ahead: Rows that it needs at most, itself counted, unless its episode ends earlier.
    """

    def __init__(self, n_step: NStep, stack: int = 1, *, repeats_padding: bool = False) -> None:
        self.n_step = n_step
        self.behind, self.ahead = stack - 1, n_step.longest
        self._repeats_padding = repeats_padding

    def draw_lengths(self, size: int, rng: np.random.Generator) -> Int64s:
        """(size,) steps of each; no random number is used where there is nothing to choose."""
        shortest, longest = self.n_step.shortest, self.n_step.longest
        if shortest == longest:
            return np.full(size, longest)
        return rng.integers(shortest, longest, size, endpoint=True)

    def gather(self, ring: Ring, slots: Int64s, lengths: Int64s, allocate: Allocator) -> Windows:
        """The windows that start in `slots`, of so many steps."""
        size, stack = len(slots), self.behind + 1
        windows = Windows(
            allocate((size,), _FLOAT32),
            allocate((size,), _FLOAT32),
            np.empty(size * stack, _INT64),
            np.empty(size * stack, _INT64),
        )
        ring.windows(slots, lengths, self.n_step.discounts, self._repeats_padding, *windows)
        return windows
