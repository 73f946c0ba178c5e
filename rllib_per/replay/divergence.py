# SPDX-License-Identifier: MIT
"""When TD errors stop being finite."""

from __future__ import annotations

from collections import deque
from typing import Any


class TrainingDivergedError(RuntimeError):
    """TD errors keep being NaN or infinite, or weights are."""


class DivergenceGuard:
    """Counts TD errors that are not finite, and raises when they are no accident any more.

    The newest 100 calls may hold 1 % of them, so as many as an average call has TD errors: one bad
    batch passes, a second one soon after does not.
    """

    CALLS = 100
    SHARE = 0.01

    def __init__(self) -> None:
        self.num_non_finite_lifetime = 0
        self._calls: deque[tuple[int, int]] = deque(maxlen=self.CALLS)
        self._num_updates = 0
        self._num_non_finite = 0

    def count(self, num_updates: int, num_non_finite: int) -> None:
        """Take note of one call.

        Raises:
            TrainingDivergedError: Too many were not finite.
        """
        if len(self._calls) == self.CALLS:
            oldest = self._calls[0]
            self._num_updates -= oldest[0]
            self._num_non_finite -= oldest[1]
        self._calls.append((num_updates, num_non_finite))
        self._num_updates += num_updates
        self._num_non_finite += num_non_finite
        self.num_non_finite_lifetime += num_non_finite
        allowed = self.SHARE * self.CALLS * self._num_updates / len(self._calls)
        if num_non_finite and self._num_non_finite > allowed:
            raise TrainingDivergedError(
                f"TD errors must be finite: {self._num_non_finite} of the last {self._num_updates} "
                f"were NaN or infinite, {num_non_finite} of them now (their transitions keep their "
                "priorities). Training has diverged: go back to a checkpoint, and lower lr, set "
                "grad_clip or clip rewards"
            )

    def state(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {
            "num_non_finite_lifetime": self.num_non_finite_lifetime,
            "calls": [list(call) for call in self._calls],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave."""
        self.num_non_finite_lifetime = int(state["num_non_finite_lifetime"])
        self._calls = deque(((int(n), int(bad)) for n, bad in state["calls"]), maxlen=self.CALLS)
        self._num_updates = sum(n for n, _ in self._calls)
        self._num_non_finite = sum(bad for _, bad in self._calls)
