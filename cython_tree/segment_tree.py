# SPDX-License-Identifier: MIT
"""`SumSegmentTree` and `MinSegmentTree`: the API of RLlib's and OpenAI Baselines' segment trees.

For programs that import `ray.rllib.execution.segment_tree`; new ones take `SumTree`, which works
on batches. Unlike the originals: any capacity, not only powers of two; values must be non-negative
(sum) or positive (min), as priorities are; `find_prefixsum_idx` never returns an item of value 0.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import numpy as np

from cython_tree._tree import SumTree


class SegmentTree:
    """One value per item in [0, capacity), reduced over any range in O(log capacity).

    Subclasses say how two values combine, and what an item is worth that was never set.
    """

    operation: Callable[[float, float], float]
    neutral_element: float

    def __init__(self, capacity: int) -> None:
        self._tree = SumTree(capacity)

    @property
    def capacity(self) -> int:
        return self._tree.capacity

    def __getitem__(self, idx: int) -> float:
        return self._tree[idx]

    def __setitem__(self, idx: int, val: float) -> None:
        self._tree[idx] = val

    def reduce(self, start: int = 0, end: int | None = None) -> float:
        """Combine the items in [start, end); a negative `end` counts from the capacity."""
        if end is None:
            end = self.capacity
        elif end < 0:
            end += self.capacity
        return self._reduce(start, max(start, end))

    def get_state(self) -> list[float]:
        """2 × capacity values, as the originals lay them out: node i combines 2i and 2i + 1,
        items stand from `capacity` on, and place 0 is unused."""
        state = [self.neutral_element] * self.capacity + [self[i] for i in range(self.capacity)]
        for node in range(self.capacity - 1, 0, -1):
            state[node] = self.operation(state[2 * node], state[2 * node + 1])
        return state

    def set_state(self, state: Sequence[float]) -> None:
        """Take the items of such a state; the nodes are computed again."""
        if len(state) != 2 * self.capacity:
            raise ValueError(
                f"`state` must hold 2 × capacity = {2 * self.capacity} values: got {len(state)}"
            )
        items = [self._mass(value) for value in state[self.capacity :]]
        self._tree.set(np.arange(self.capacity), np.array(items, dtype=np.float64))

    def _reduce(self, start: int, end: int) -> float:
        raise NotImplementedError

    def _mass(self, value: float) -> float:
        """What the tree below holds for an item of this value."""
        return value


class SumSegmentTree(SegmentTree):
    operation = staticmethod(operator.add)
    neutral_element = 0.0

    def sum(self, start: int = 0, end: int | None = None) -> float:
        """The sum over the items in [start, end)."""
        return self.reduce(start, end)

    def find_prefixsum_idx(self, prefixsum: float) -> int:
        """The smallest i such that items 0 to i sum up to more than `prefixsum`.

        A `prefixsum` of the total, or more by no more than 1e-5, is taken to be just below it.
        """
        total = self._tree.total
        if not 0 <= prefixsum <= total + 1e-5:
            raise ValueError(f"`prefixsum` must be in [0, {total!r}]: got {prefixsum}")
        return int(self._tree.find([min(float(prefixsum), math.nextafter(total, 0.0))])[0])

    def _reduce(self, start: int, end: int) -> float:
        return self._tree.reduce(start, end)[0]


class MinSegmentTree(SegmentTree):
    operation = staticmethod(min)
    neutral_element = math.inf

    def __getitem__(self, idx: int) -> float:
        return self._tree[idx] or math.inf

    def __setitem__(self, idx: int, val: float) -> None:
        self._tree[idx] = self._mass(val)

    def min(self, start: int = 0, end: int | None = None) -> float:
        """The smallest of the items in [start, end), or inf if none was set."""
        return self.reduce(start, end)

    def _reduce(self, start: int, end: int) -> float:
        return self._tree.reduce(start, end)[1]

    def _mass(self, value: float) -> float:
        if not value > 0:
            raise ValueError(f"items must be positive, inf for none: got {value}")
        return 0.0 if value == math.inf else value
