# SPDX-License-Identifier: MIT
"""Rank-based prioritization (Schaul et al. 2016, §3.3): what counts is the order of priorities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rllib_per.arrays import Array, Bools, Float64s, Int64s
from rllib_per.replay.draw import Proportional
from rllib_per.replay.priority_rule import PriorityRule
from rllib_per.settings.replay import Prioritized


class Rank(Proportional):
    """mass = rank^-alpha; rank 1 has the largest priority, and of equal ones the oldest slot.

    A sort gives all transitions their ranks. Between two sorts the others keep theirs, while

    * an updated one gets the rank that its new priority has among those of the last sort;
    * the j-th new one since the last sort gets that rank too, and j at least. New ones have the
      largest priority, so they take the ranks 1, 2, ... as they would in a sorted list.

    So ranks are exact as of the last sort, and it is never longer ago than changes to 1/16 of the
    transitions (or 64 changes). P(i) = m_i / Σ m_k holds at all times, and so do the importance
    weights: masses may be old, but they are those that are drawn with. O(log N) per change.

    A rank is global, so several of these are not drawn from as one.
    """

    NAME: ClassVar[str] = "rank"
    shardable: ClassVar[bool] = False
    BYTES_PER_SLOT: ClassVar[int] = Proportional.BYTES_PER_SLOT + 8 + 1

    MAX_SHARE_CHANGED = 1 / 16
    MIN_CHANGES = 64

    def __init__(
        self, capacity: int, rule: PriorityRule, decay: float = Prioritized.max_priority_decay
    ) -> None:
        super().__init__(capacity, rule, decay)
        self._is_there: Bools = np.zeros(capacity, np.bool_)
        self._sorted: Float64s = np.empty(0)  # Priorities as of the last sort, ascending.
        self._num_new = self._num_changes = 0

    def replace(self, slots: Int64s, num_gone: int, new: Float64s | float) -> None:
        self._is_there[slots] = np.arange(len(slots)) >= num_gone
        super().replace(slots, num_gone, new)
        self._num_new += len(slots) - num_gone
        self._count_changes(len(slots))

    def update(self, slots: Int64s, td_errors: Array) -> None:
        try:
            super().update(slots, td_errors)
        finally:
            self._count_changes(len(slots))

    def change_alpha(self, alpha: float, slots: Int64s) -> None:
        self._rule = self._rule.with_alpha(alpha)
        self._sort()

    def arrays(self, size: int) -> dict[str, Array]:
        """As of a sort, so that a restored draw, which sorts too, goes on as this one does."""
        self._sort()
        return super().arrays(size)

    def load_state(self, state: Mapping[str, Any], slots: Int64s) -> None:
        super().load_state(state, slots)
        self._is_there[:] = False
        self._is_there[slots] = True
        self._sort()

    def _masses_of_new(self, priorities: Float64s) -> Float64s:
        places = self._num_new + np.arange(1, len(priorities) + 1)
        return self._masses(np.maximum(self._ranks(priorities), places), priorities)

    def _masses_of_updated(self, priorities: Float64s) -> Float64s:
        return self._masses(self._ranks(priorities), priorities)

    def _ranks(self, priorities: Float64s) -> Int64s:
        """One more than there are larger ones as of the last sort."""
        return len(self._sorted) + 1 - np.searchsorted(self._sorted, priorities, side="right")

    def _masses(self, ranks: Int64s, priorities: Float64s) -> Float64s:
        masses: Float64s = np.power(ranks, -self.alpha, dtype=np.float64)
        masses[priorities == 0.0] = 0.0
        return masses

    def _count_changes(self, num_changes: int) -> None:
        self._num_changes += num_changes
        if self._num_changes > max(self.MIN_CHANGES, self.MAX_SHARE_CHANGED * len(self._sorted)):
            self._sort()

    def _sort(self) -> None:
        """Exact ranks for all. O(N log N)."""
        slots = np.flatnonzero(self._is_there)
        priorities = self._priorities[slots]
        order = np.argsort(-priorities, kind="stable")
        ranks = np.empty(len(slots), np.int64)
        ranks[order] = np.arange(1, len(slots) + 1)
        self._tree.set(slots, self._masses(ranks, priorities))
        self._sorted = priorities[order[::-1]]
        self._num_new = self._num_changes = 0
