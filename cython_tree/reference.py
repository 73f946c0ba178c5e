# SPDX-License-Identifier: MIT
"""What `SumTree` does, in plain numpy and O(capacity): the specification to compare with."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


class SumTree:
    """Leaves in one array; everything else is computed from it when asked. See `_tree.pyx`."""

    def __init__(self, capacity: int) -> None:
        capacity = operator.index(capacity)
        if capacity < 1:
            raise ValueError(f"`capacity` must be at least 1: got {capacity}")
        self._leaves: _Floats = np.zeros(capacity)

    def __len__(self) -> int:
        return self.capacity

    def __repr__(self) -> str:
        return f"SumTree(capacity={self.capacity}, total={self.total!r})"

    def __getitem__(self, index: int) -> float:
        return float(self.get([operator.index(index)])[0])

    def __setitem__(self, index: int, value: float) -> None:
        self.set([operator.index(index)], [float(value)])

    @property
    def capacity(self) -> int:
        return len(self._leaves)

    @property
    def total(self) -> float:
        return self.reduce()[0]

    @property
    def min(self) -> float:
        return self.reduce()[1]

    @property
    def max(self) -> float:
        return self.reduce()[2]

    def set(self, indices: npt.ArrayLike, values: npt.ArrayLike) -> None:
        positions, numbers = self._leaf_indices(indices), _floats(values)
        if len(positions) != len(numbers):
            raise ValueError(f"of one length: got {len(positions)} and {len(numbers)}")
        if not (np.isfinite(numbers) & (numbers >= 0)).all():
            raise ValueError(f"values must be finite and at least 0: got {numbers}")
        for index, number in zip(positions, numbers, strict=True):
            self._leaves[index] = number  # One by one: of duplicates, the last wins.

    def get(self, indices: npt.ArrayLike) -> _Floats:
        return self._leaves[self._leaf_indices(indices)]

    def find(self, targets: npt.ArrayLike) -> _Ints:
        numbers = _floats(targets)
        running_sums = np.cumsum(self._leaves)
        if not ((numbers >= 0) & (numbers < running_sums[-1])).all():
            raise ValueError(f"`targets` must be in [0, {running_sums[-1]}): got {numbers}")
        return np.searchsorted(running_sums, numbers, side="right").astype(np.int64)

    def sample(self, batch_size: int, rng: np.random.Generator, stratified: bool = True) -> _Ints:
        return self.sample_with_values(batch_size, rng, stratified)[0]

    def sample_with_values(
        self, batch_size: int, rng: np.random.Generator, stratified: bool = True
    ) -> tuple[_Ints, _Floats]:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1: got {batch_size}")
        total = self.total
        if total == 0:
            raise RuntimeError("every leaf is 0, so there is nothing to draw: set one first")
        if total == np.inf:
            raise OverflowError("the leaves' sum is beyond float64: scale the values down")
        uniforms = rng.random(batch_size)
        if stratified:
            targets = (np.arange(batch_size) + uniforms) * (total / batch_size)
        else:
            targets = uniforms * total
        indices = self.find(np.minimum(targets, np.nextafter(total, 0)))
        return indices, self._leaves[indices]

    def reduce(self, start: int = 0, end: int | None = None) -> tuple[float, float, float]:
        end = self.capacity if end is None else end
        if not 0 <= start <= end <= self.capacity:
            raise IndexError(f"need 0 <= start <= end <= {self.capacity}: got {start} and {end}")
        leaves = self._leaves[start:end]
        with np.errstate(over="ignore"):
            total = float(np.cumsum(leaves)[-1]) if len(leaves) else 0.0
        return (
            total,
            float(np.min(leaves, where=leaves > 0, initial=np.inf)),
            float(np.max(leaves, initial=0.0)),
        )

    def check_invariants(self) -> None:
        assert (np.isfinite(self._leaves) & (self._leaves >= 0)).all()

    def _leaf_indices(self, indices: npt.ArrayLike) -> _Ints:
        numbers = _vector(indices, "iu").astype(np.int64)
        if not ((numbers >= 0) & (numbers < self.capacity)).all():
            raise IndexError(f"indices must be in [0, {self.capacity}): got {numbers}")
        return numbers


def importance_weights(
    masses: npt.ArrayLike, unit_mass: float, beta: float
) -> npt.NDArray[np.float32]:
    numbers = _floats(masses)
    positive = (numbers > 0).all() and np.isfinite(numbers).all() and 0 < unit_mass < np.inf
    if not (positive and 0 <= beta < np.inf):
        raise ValueError(f"out of range: masses {numbers}, {unit_mass} or {beta}")
    weights: npt.NDArray[np.float32] = (unit_mass**beta / numbers**beta).astype(np.float32)
    return weights


def _floats(array: npt.ArrayLike) -> _Floats:
    return _vector(array, "iuf").astype(np.float64)


def _vector(array: npt.ArrayLike, kinds: str) -> npt.NDArray[Any]:
    vector = np.asarray(array)
    if vector.ndim != 1:
        raise ValueError(f"one-dimensional: got shape {vector.shape}")
    if vector.size and vector.dtype.kind not in kinds:
        raise TypeError(f"a dtype of kind {' or '.join(kinds)}: got {vector.dtype}")
    return vector
