# SPDX-License-Identifier: MIT
"""The priority and the mass of every stored transition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cython_tree import SumTree
from rllib_per.bounds import check_bounds
from rllib_per.replay.divergence import DivergenceGuard
from rllib_per.replay.fragment import Array, Int64s
from rllib_per.replay.prioritization import (
    LARGEST_PRIORITY,
    SMALLEST_PRIORITY,
    Float64s,
    Prioritization,
)


class Priorities:
    """Raw priorities by slot beside the tree of their masses; a mass of 0 is never drawn.

    Attributes:
        tree: The masses, priority^alpha.
        largest: The largest priority so far, in the domain of priorities.
        guard: Counts TD errors that are not finite.
    """

    BYTES_PER_SLOT = 8 + 34  # the priority, and the tree's 4.2 float64

    def __init__(self, capacity: int, prioritization: Prioritization, decay: float) -> None:
        check_bounds(max_priority_decay=decay)
        self.tree = SumTree(capacity)
        self.largest = 1.0
        self.guard = DivergenceGuard()
        self._prioritization = prioritization
        self._decay = decay
        self._priorities: Float64s = np.zeros(capacity)

    @property
    def alpha(self) -> float:
        return self._prioritization.alpha

    def change_alpha(self, alpha: float, slots: Int64s) -> None:
        """Transform the priorities of all transitions, which are in `slots`, anew."""
        changed = self._prioritization.with_alpha(alpha)
        self.tree.set(slots, changed.masses(self._priorities[slots]))
        self._prioritization = changed

    def replace(self, slots: Int64s, num_gone: int, new: Float64s | float) -> None:
        """The first `num_gone` slots can't be drawn any more; the others get `new` priorities."""
        priorities = np.zeros(len(slots))
        masses = np.zeros(len(slots))
        priorities[num_gone:] = new
        masses[num_gone:] = self._prioritization.masses(priorities[num_gone:])
        self._priorities[slots] = priorities
        self.tree.set(slots, masses)

    def of_new(self, td_errors: Array) -> tuple[Float64s, int]:
        """Priorities from initial TD errors, and how many of these are not finite.

        Those get the largest priority so far.
        """
        priorities = self._prioritization.priorities(td_errors)
        finite = priorities <= LARGEST_PRIORITY
        self.largest = max(self.largest, float(priorities.max(where=finite, initial=0.0)))
        priorities[~finite] = self.largest
        return priorities, len(priorities) - int(np.count_nonzero(finite))

    def of_given(self, priorities: Array) -> Float64s:
        """Initial priorities as they were given, finite and not negative; 0 is never drawn."""
        given: Float64s = np.where(priorities, np.maximum(priorities, SMALLEST_PRIORITY), 0.0)
        self.largest = max(self.largest, float(given.max(initial=0.0)))
        return given

    def update(self, slots: Int64s, td_errors: Array) -> None:
        """New TD errors of the transitions in `slots`; slot -1 is dropped.

        Raises:
            TrainingDivergedError: Too many were not finite lately; the others have been applied.
        """
        priorities = self._prioritization.priorities(td_errors)
        num_updates, num_non_finite = len(slots), 0
        if slots.min(initial=0) < 0 or not priorities.max(initial=0.0) <= LARGEST_PRIORITY:
            finite = priorities <= LARGEST_PRIORITY
            num_non_finite = num_updates - int(np.count_nonzero(finite))
            applied = finite & (slots >= 0)
            slots, priorities = slots[applied], priorities[applied]
        if len(slots):
            decayed = max(self.largest * self._decay, SMALLEST_PRIORITY)
            self.largest = max(decayed, float(priorities.max()))
            self._priorities[slots] = priorities
            self.tree.set(slots, self._prioritization.masses(priorities))
        self.guard.count(num_updates, num_non_finite)

    # -- state -------------------------------------------------------------------------------

    ARRAYS = ("priorities", "masses")

    def state(self, size: int) -> dict[str, Any]:
        """A copy for the first `size` slots: arrays, and values that JSON can hold."""
        return self.values() | self.arrays(size)

    def values(self) -> dict[str, Any]:
        """What of the state JSON can hold."""
        return {
            "alpha": self.alpha,
            "max_priority": self.largest,
            "guard": self.guard.state(),
        }

    def arrays(self, size: int) -> dict[str, Array]:
        """The rest of the state, a copy."""
        return {
            "priorities": self._priorities[:size].copy(),
            "masses": self.tree.get(np.arange(size)),
        }

    def check_state(self, state: Mapping[str, Any], size: int) -> None:
        """Raises ValueError, or KeyError, unless `load_state` can't fail."""
        for name in self.ARRAYS:
            values = np.asarray(state[name])
            if values.shape != (size,) or not np.isfinite(values).all() or (values < 0.0).any():
                raise ValueError(
                    f"{name} of the state must be {size} finite numbers, none negative"
                )
        self._prioritization.with_alpha(state["alpha"])
        DivergenceGuard().load_state(state["guard"])
        if not 0.0 < float(state["max_priority"]) <= LARGEST_PRIORITY:
            raise ValueError(
                f"max_priority of the state must be in (0, {LARGEST_PRIORITY:g}]: got "
                f"{state['max_priority']}"
            )

    def load_state(self, state: Mapping[str, Any], slots: Int64s) -> None:
        """Restore what `state` gave, for the transitions in `slots`."""
        self._prioritization = self._prioritization.with_alpha(state["alpha"])
        self.largest = float(state["max_priority"])
        self.guard.load_state(state["guard"])
        self._priorities[:] = 0.0
        self._priorities[slots] = state["priorities"][slots]
        if self._decay == 1.0:  # Older states do not count priorities that were given.
            self.largest = max(self.largest, float(self._priorities.max(initial=0.0)))
        masses = np.zeros(self.tree.capacity)
        masses[slots] = state["masses"][slots]
        self.tree.set(np.arange(self.tree.capacity), masses)
