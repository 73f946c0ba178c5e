# SPDX-License-Identifier: MIT
"""What is drawn: priority -> mass -> draw -> probability -> importance weight, in one object.

Draw          Proportional: mass = priority^alpha            Uniform: every mass is 1
              Rank (rank.py): mass = rank^-alpha

Over several shards importance weights are scaled in `sharding.weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from cython_tree import SumTree, importance_weights
from rllib_per.arrays import Array, Float32s, Float64s, Int64s
from rllib_per.replay.divergence import DivergenceGuard
from rllib_per.replay.priority_rule import LARGEST_PRIORITY, SMALLEST_PRIORITY, PriorityRule
from rllib_per.settings.replay import Prioritized
from rllib_per.settings.rules import check

# Draws are made of random numbers of 53 bits, so nothing is drawn with a smaller probability.
SMALLEST_PROBABILITY = 2.0**-53

# "buffer" scales by the weight of the smallest mass, but of no smaller one than this share of the
# mean mass: else a single TD error of 0 would take the others' weights to nothing.
SMALLEST_MASS_SHARE = 0.01


class Drawn(NamedTuple):
    """B transitions: their slots (B,) int64, and the masses (B,) that they were drawn with."""

    slots: Int64s
    masses: Float64s


class Draw(Protocol):
    """Decides which of the transitions that are ready come next, and with which weight.

    P(i) = m_i / Σ m_k for masses m that differ from class to class; one of mass 0 is never drawn.

    Attributes:
        shardable: Whether several of these can be drawn from as one.
        largest: The largest priority so far.
        guard: Counts TD errors that are not finite.
    """

    shardable: ClassVar[bool]
    largest: float
    guard: DivergenceGuard

    @property
    def alpha(self) -> float:
        """How much priorities matter; 0: not at all."""

    @property
    def total(self) -> float:
        """Σ m_k."""

    @property
    def smallest(self) -> float:
        """The smallest positive mass; infinite where there is none."""

    def replace(self, slots: Int64s, num_gone: int, new: Float64s | float) -> None:
        """The first `num_gone` slots can't be drawn any more; the others get `new` priorities."""

    def update(self, slots: Int64s, td_errors: Array) -> None:
        """New TD errors of the transitions in `slots`; slot -1 is dropped."""

    def sample(self, size: int, rng: np.random.Generator, stratified: bool) -> Drawn:
        """B transitions, with replacement; slots and masses in one pass."""

    def at(self, fractions: Float64s) -> Drawn:
        """The transitions at these places of the mass line, (B,) in [0, 1) of its length."""

    def change_alpha(self, alpha: float, slots: Int64s) -> None:
        """Give all transitions, which are in `slots`, new masses, exactly."""


def weigh(
    out: Float32s,
    drawn: Drawn,
    draw: Draw,
    *,
    size: int,
    beta: float,
    normalization: str | None,
) -> None:
    """Importance weights w_i = (N·P(i))^-β, scaled as asked (Schaul et al. 2016, §3.4).

    Args:
        out: (B,), is filled.
        drawn: What was drawn.
        draw: From what.
        size: N, transitions that could have been drawn.
        beta: β in [0, 1].
        normalization: By the largest weight of the "batch", of the "buffer", or None: not.
    """
    unit = _unit_mass(normalization, drawn.masses, draw, size)
    out[:] = importance_weights(drawn.masses, unit, beta)
    if normalization == "buffer":
        np.minimum(out, 1.0, out=out)
    elif normalization is None:
        np.minimum(out, largest_weight(size, beta), out=out)


def _unit_mass(normalization: str | None, masses: Float64s, draw: Draw, size: int) -> float:
    """The mass whose importance weight is 1, m_1: w_i = (N·P(i))^-β scaled is (m_1 / m_i)^β.

    "batch" scales by the largest weight of the batch, "buffer" by that of the buffer (§3.4), None
    not at all: there N·P is 1 for the mean mass, and `largest_weight` the bound. P is the chance of
    each draw, stratified or not.
    """
    if normalization == "batch":
        return float(masses.min())
    if normalization == "buffer":
        return max(draw.smallest, SMALLEST_MASS_SHARE * draw.total / size)
    return draw.total / size


def largest_weight(size: int, beta: float) -> float:
    """The largest unscaled importance weight among N transitions: that of `SMALLEST_PROBABILITY`.

    A rarer one is drawn, if ever, with a random number that stands for so much of the mass.
    """
    return float((size * SMALLEST_PROBABILITY) ** -beta)


class Proportional:
    """mass = priority^alpha (Schaul et al. 2016, eq. 1): raw priorities beside a tree of masses.

    Args:
        capacity: Slots.
        rule: From TD error to priority.
        decay: The largest priority so far is multiplied by it at every update.
    """

    NAME: ClassVar[str] = "proportional"
    shardable: ClassVar[bool] = True
    BYTES_PER_SLOT: ClassVar[int] = 8 + 34  # the priority, and the tree's 4.2 float64

    def __init__(
        self, capacity: int, rule: PriorityRule, decay: float = Prioritized.max_priority_decay
    ) -> None:
        check(Prioritized, max_priority_decay=decay)
        self.largest = 1.0
        self.guard = DivergenceGuard()
        self._tree = SumTree(capacity)
        self._rule = rule
        self._decay = decay
        self._priorities: Float64s = np.zeros(capacity)

    @property
    def alpha(self) -> float:
        """The exponent."""
        return self._rule.alpha

    @property
    def total(self) -> float:
        """See `Draw`, as for all that follows."""
        return self._tree.total

    @property
    def smallest(self) -> float:
        return self._tree.min

    def sample(self, size: int, rng: np.random.Generator, stratified: bool) -> Drawn:
        return Drawn(*self._tree.sample_with_values(size, rng, stratified))

    def at(self, fractions: Float64s) -> Drawn:
        # Rounding must not lead past the last mass.
        targets = np.minimum(fractions * self._tree.total, np.nextafter(self._tree.total, 0.0))
        slots = self._tree.find(targets)
        return Drawn(slots, self._tree.get(slots))

    def change_alpha(self, alpha: float, slots: Int64s) -> None:
        self._rule = self._rule.with_alpha(alpha)
        self._tree.set(slots, self._rule.masses(self._priorities[slots]))

    def replace(self, slots: Int64s, num_gone: int, new: Float64s | float) -> None:
        priorities = np.zeros(len(slots))
        masses = np.zeros(len(slots))
        priorities[num_gone:] = new
        masses[num_gone:] = self._masses_of_new(priorities[num_gone:])
        self._priorities[slots] = priorities
        self._tree.set(slots, masses)

    def _masses_of_new(self, priorities: Float64s) -> Float64s:
        return self._masses_of_updated(priorities)

    def _masses_of_updated(self, priorities: Float64s) -> Float64s:
        return self._rule.masses(priorities)

    def of_new(self, td_errors: Array) -> tuple[Float64s, int]:
        """Priorities from initial TD errors, and how many of these are not finite.

        Those get the largest priority so far.
        """
        priorities = self._rule.priorities(td_errors)
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
        priorities = self._rule.priorities(td_errors)
        num_updates, num_non_finite = len(slots), 0
        if slots.min(initial=0) < 0 or not priorities.max(initial=0.0) <= LARGEST_PRIORITY:
            finite = priorities <= LARGEST_PRIORITY
            num_non_finite = num_updates - int(np.count_nonzero(finite))
            applied = finite & (slots >= 0)
            slots, priorities = slots[applied], priorities[applied]
        if len(slots):
            newest = float(priorities.max())
            self.largest = max(self.largest * self._decay, newest, SMALLEST_PRIORITY)
            self._priorities[slots] = priorities
            self._tree.set(slots, self._masses_of_updated(priorities))
        self.guard.count(num_updates, num_non_finite)

    # -- state -------------------------------------------------------------------------------

    ARRAYS = ("priorities", "masses")

    def state(self, size: int) -> dict[str, Any]:
        """A copy for the first `size` slots: arrays, and values that JSON can hold."""
        return self.values() | self.arrays(size)

    def values(self) -> dict[str, Any]:
        """What of the state JSON can hold."""
        return {
            "prioritization": self.NAME,
            "alpha": self.alpha,
            "max_priority": self.largest,
            "guard": self.guard.state(),
        }

    def arrays(self, size: int) -> dict[str, Array]:
        """The rest of the state, a copy."""
        return {
            "priorities": self._priorities[:size].copy(),
            "masses": self._tree.get(np.arange(size)),
        }

    def check_state(self, state: Mapping[str, Any], size: int) -> None:
        """Raises ValueError, or KeyError, unless `load_state` can't fail."""
        for name in self.ARRAYS:
            values = np.asarray(state[name])
            if values.shape != (size,) or not np.isfinite(values).all() or (values < 0.0).any():
                raise ValueError(
                    f"{name} of the state must be {size} finite numbers, none negative"
                )
        self._rule.with_alpha(state["alpha"])
        DivergenceGuard().load_state(state["guard"])
        if not 0.0 < float(state["max_priority"]) <= LARGEST_PRIORITY:
            raise ValueError(
                f"max_priority of the state must be in (0, {LARGEST_PRIORITY:g}]: got "
                f"{state['max_priority']}"
            )

    def load_state(self, state: Mapping[str, Any], slots: Int64s) -> None:
        """Restore what `state` gave, for the transitions in `slots`."""
        self._rule = self._rule.with_alpha(state["alpha"])
        self.largest = float(state["max_priority"])
        self.guard.load_state(state["guard"])
        self._priorities[:] = 0.0
        self._priorities[slots] = state["priorities"][slots]
        if self._decay == 1.0:  # Older states do not count priorities that were given.
            self.largest = max(self.largest, float(self._priorities.max(initial=0.0)))
        masses = np.zeros(self._tree.capacity)
        if state.get("prioritization", Proportional.NAME) == self.NAME:
            masses[slots] = state["masses"][slots]
        else:
            masses[slots] = self._rule.masses(self._priorities[slots])
        self._tree.set(np.arange(self._tree.capacity), masses)


class Uniform(Proportional):
    """Every mass is 1, whatever the priority: Proportional with an alpha that stays 0."""

    NAME: ClassVar[str] = "uniform"

    def __init__(
        self, capacity: int, rule: PriorityRule, decay: float = Prioritized.max_priority_decay
    ) -> None:
        super().__init__(capacity, rule.with_alpha(0.0), decay)

    def change_alpha(self, alpha: float, slots: Int64s) -> None:
        if alpha != 0.0:
            raise ValueError(f"a uniform buffer has alpha 0: got {alpha}; use the prioritized one")
        super().change_alpha(alpha, slots)

    def load_state(self, state: Mapping[str, Any], slots: Int64s) -> None:
        """That of any draw: masses are equal again."""
        super().load_state(state, slots)
        self.change_alpha(0.0, slots)
