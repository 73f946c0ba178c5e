# SPDX-License-Identifier: MIT
"""PrioritizedReplayBuffer: storage, a tree of masses, and a random generator."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cython_tree import SumTree, importance_weights
from rllib_per.replay.fragment import Array, Fragment, Int64s, RowSpec, TransitionBatch
from rllib_per.replay.metrics import ReplayCounts
from rllib_per.replay.n_step import NStep
from rllib_per.replay.prioritization import (
    LARGEST_PRIORITY,
    WEIGHT_NORMALIZATIONS,
    DivergenceGuard,
    Float64s,
    Prioritization,
    unit_mass,
)
from rllib_per.replay.storage import Allocator, Storage

INITIAL_PRIORITIES = ("max", "td_error", "given")
_BYTES_PER_ROW = 8 + 34  # the raw priority, and the tree's share


class PrioritizedReplayBuffer:
    """Prioritized experience replay (Schaul et al. 2016) of n-step transitions.

    Fragments of any number of environment streams go in, batches of transitions come out, TD errors
    come back beside the ids of their transitions: in any order, with any number of batches in
    flight. A transition can be drawn as soon as its n-step window is complete, until its row, or a
    frame that its stacks need, is overwritten. Calls from several threads take turns.

    Args:
        capacity: Rows, each with one frame. An episode of L steps takes L + 1.
        rows: What a row consists of.
        n_step: Steps of a window, or an inclusive range that every draw picks from uniformly.
        gamma: γ in [0, 1].
        alpha: P(i) ∝ priority^alpha; 0 is uniform.
        priority_epsilon: ε, added to the size of every TD error.
        priority: From a TD error: "absolute", "huber" or "clipped" (see `Prioritization`).
        priority_clip: The bound of "clipped".
        initial_priority: Of a new transition: "max", the largest priority so far (1 at first);
            "td_error", that of its n-step TD error from the fragment's Q-values; "given", the
            extra column "priority".
        max_priority_decay: The largest priority so far is multiplied by it at every update.
        reward_clip: Clip stored rewards to ± this; None: as they come.
        weight_normalization: Importance weights are scaled by the largest of the "batch" or of the
            "buffer", or not (None).
        stratified: One draw from each of B equal shares of the mass, or B independent draws.
        gather_threads: Threads that copy frames into a batch.
        seed: Of the draws.
        first_id: The id of the first row ever; of a shard, `ids.first_id` makes it.
        allocator: Makes a batch's arrays from (shape, dtype), for pinned memory and the like.

    Raises:
        ValueError, TypeError: An argument is out of range.
        MemoryError: The capacity can't fit; the message has the bytes that it needs.
    """

    def __init__(
        self,
        capacity: int,
        rows: RowSpec,
        *,
        n_step: int | tuple[int, int] = 1,
        gamma: float = 0.99,
        alpha: float = 0.6,
        priority_epsilon: float = 1e-6,
        priority: str = "absolute",
        priority_clip: float = 1.0,
        initial_priority: str = "max",
        max_priority_decay: float = 1.0,
        reward_clip: float | None = None,
        weight_normalization: str | None = "batch",
        stratified: bool = True,
        gather_threads: int = 1,
        seed: int | None = None,
        first_id: int = 0,
        allocator: Allocator = np.empty,
    ) -> None:
        self._prioritization = Prioritization(alpha, priority_epsilon, priority, priority_clip)
        _check_choices(initial_priority, weight_normalization, max_priority_decay, rows)
        self._n_step = NStep(n_step, gamma)
        self._storage = Storage(
            capacity,
            rows,
            self._n_step,
            with_q=initial_priority == "td_error",
            reward_clip=reward_clip,
            first_id=first_id,
            gather_threads=gather_threads,
            allocator=allocator,
            bytes_beside=_BYTES_PER_ROW,
        )
        self._ring = self._storage.ring
        self._priorities: Float64s = np.zeros(capacity)
        self._tree = SumTree(capacity)
        self._initial_priority = initial_priority
        self._max_priority = 1.0
        self._max_priority_decay = max_priority_decay
        self._normalization = weight_normalization
        self._stratified = stratified
        self._allocate = allocator
        self._rng = np.random.default_rng(seed)
        self._guard = DivergenceGuard()
        self._counts = ReplayCounts()
        self._lock = threading.Lock()

    @classmethod
    def for_spaces(
        cls,
        capacity: int,
        observation_space: Any,
        action_space: Any,
        *,
        stack: int | None = None,
        stack_padding: str = "zero",
        extras: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]] | None = None,
        **options: Any,
    ) -> PrioritizedReplayBuffer:
        """A buffer for the Box or Discrete spaces of Gymnasium, or what has their shape and dtype.

        Args:
            stack: The observation space's first axis stacks this many frames; None: no stack.
            options: Further keywords of the buffer.

        Raises:
            ValueError: A space has no shape or dtype, or another stack.
        """
        rows = RowSpec.for_spaces(
            observation_space,
            action_space,
            stack=stack,
            stack_padding=stack_padding,
            extras=extras,
        )
        return cls(capacity, rows, **options)

    # -- the four arrows ---------------------------------------------------------------------

    def add(self, fragment: Fragment) -> int:
        """Write a fragment; how many transitions became sampleable, tails of earlier ones included.

        A stream goes on where its last fragment ended if `first_step` says so; any other number is
        a gap: open windows end like a truncation, and a new history starts. O(rows).

        Raises:
            ValueError: The fragment does not fit; the buffer has not changed.
            TrainingDivergedError: Too many initial TD errors were not finite; the rows are in.
        """
        with self._lock:
            if self._initial_priority == "given":
                _check_given(fragment)
            slots, num_gone = self._storage.add(fragment)
            num_new = len(slots) - num_gone
            if len(slots):
                priorities = np.zeros(len(slots))
                masses = np.zeros(len(slots))
                num_non_finite = self._initialize(slots[num_gone:], priorities[num_gone:])
                masses[num_gone:] = self._prioritization.masses(priorities[num_gone:])
                self._priorities[slots] = priorities
                self._tree.set(slots, masses)
                self._counts.num_added += num_new
                if self._initial_priority == "td_error":
                    self._guard.count(num_new, num_non_finite)
            return num_new

    def sample(self, batch_size: int, beta: float) -> TransitionBatch:
        """Draw transitions with probability proportional to mass, with replacement.

        P(i) = m_i / Σ m_k (eq. 1); w_i = (N·P(i))^-β, scaled as asked (§3.4; decision 0010).
        A transition of zero mass is never drawn. O(B·(log N + frames)).

        Args:
            batch_size: B >= 1, in transitions.
            beta: β in [0, 1].

        Raises:
            ValueError: An argument is out of range.
            RuntimeError: No transition can be drawn yet.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1: got {batch_size}")
        _check_beta(beta)
        with self._lock:
            self._require_mass()
            slots, masses = self._tree.sample_with_values(batch_size, self._rng, self._stratified)
            return self._gather(slots, masses, beta, self._normalization)

    def draw(self, fractions: npt.ArrayLike, beta: float) -> TransitionBatch:
        """The transitions at given places of the mass line, with unscaled importance weights.

        What `sample` does with places of its own choice. Of several buffers that are drawn from as
        one, the caller chooses the places, and scales the weights.

        Args:
            fractions: (B,) in [0, 1), of the total mass.
            beta: β in [0, 1].

        Raises:
            ValueError: An argument is out of range.
            RuntimeError: No transition can be drawn yet.
        """
        places = np.asarray(fractions, np.float64)
        if places.ndim != 1 or not ((places >= 0.0) & (places < 1.0)).all():
            raise ValueError(f"fractions must be one-dimensional and in [0, 1): got {places}")
        _check_beta(beta)
        with self._lock:
            self._require_mass()
            # Rounding must not lead past the last mass.
            targets = np.minimum(places * self._tree.total, np.nextafter(self._tree.total, 0.0))
            slots = self._tree.find(targets)
            return self._gather(slots, self._tree.get(slots), beta, None)

    def update_priorities(
        self, ids: npt.ArrayLike | Int64s, td_errors: npt.ArrayLike | Array
    ) -> None:
        """Give transitions the priorities of new TD errors; of one that occurs twice, the last.

        TD errors of stale ids are dropped and counted. NaN and infinite ones (float32 is the
        bound) leave the old priority and are counted.

        Raises:
            ValueError, TypeError: Lengths or dtypes differ from (B,) integers and (B,) floats, or
                an id was never given out here; nothing has changed.
            TrainingDivergedError: Too many were not finite; the others have been applied.
        """
        ids, td_errors = _check_update(ids, td_errors)
        with self._lock:
            slots, num_stale = self._ring.resolve(ids)
            priorities = self._prioritization.priorities(td_errors)
            num_non_finite = 0
            if num_stale or not priorities.max(initial=0.0) <= LARGEST_PRIORITY:
                finite = priorities <= LARGEST_PRIORITY
                num_non_finite = len(ids) - int(np.count_nonzero(finite))
                applied = finite & (slots >= 0)
                slots, priorities = slots[applied], priorities[applied]
            if len(slots):
                self._max_priority = max(
                    self._max_priority * self._max_priority_decay, float(priorities.max())
                )
                self._priorities[slots] = priorities
                self._tree.set(slots, self._prioritization.masses(priorities))
            self._counts.num_stale += num_stale
            if len(ids):
                self._guard.count(len(ids), num_non_finite)

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return self._ring.num_ready

    # -- settings and figures ----------------------------------------------------------------

    @property
    def rows(self) -> RowSpec:
        """What a row consists of."""
        return self._storage.rows

    @property
    def alpha(self) -> float:
        """mass = priority^alpha. A new alpha re-transforms every stored priority, exactly."""
        return self._prioritization.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        changed = self._prioritization.with_alpha(alpha)
        with self._lock:
            slots = self._ring.ready_slots()
            self._tree.set(slots, changed.masses(self._priorities[slots]))
            self._prioritization = changed

    @property
    def total_mass(self) -> float:
        """Sum of the masses of all transitions that can be drawn."""
        return self._tree.total

    @property
    def smallest_mass(self) -> float:
        """The smallest positive mass; infinite where there is none."""
        return self._tree.min

    def metrics(self) -> dict[str, float]:
        """Figures of now, of the newest batch, and since the beginning (`..._lifetime`)."""
        with self._lock:
            return {
                "num_transitions": float(self._ring.num_ready),
                "capacity": float(self._ring.capacity),
                "alpha": self.alpha,
                "max_priority": self._max_priority,
                "num_gaps_lifetime": float(self._ring.num_gaps),
                "num_non_finite_updates_lifetime": float(self._guard.num_non_finite_lifetime),
                **self._counts.metrics(self._ring.first_id + self._ring.written),
            }

    # -- state -------------------------------------------------------------------------------

    @property
    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of the state are arrays."""
        return (*self._storage.state_arrays, "priorities", "masses")

    def state(self) -> dict[str, Any]:
        """A copy of everything that decides what comes next: arrays, and values for JSON."""
        with self._lock:
            filled = min(self._ring.written, self._ring.capacity)
            return {
                **self._storage.state(),
                "priorities": self._priorities[:filled].copy(),
                "masses": self._tree.get(np.arange(filled)),
                "alpha": self.alpha,
                "max_priority": self._max_priority,
                "rng": self._rng.bit_generator.state,
                "guard": self._guard.state(),
                "counts": self._counts.state(),
            }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave: the draws that follow are the same.

        Ids keep this buffer's own shard and incarnation. Where batches of before the restore may
        still be in flight, a new incarnation makes their answers stale.

        Raises:
            KeyError, ValueError: It is of another kind of buffer, or incomplete; nothing has
                changed.
        """
        rng = np.random.default_rng()
        rng.bit_generator.state = state["rng"]
        guard, counts = DivergenceGuard(), ReplayCounts()
        guard.load_state(state["guard"])
        counts.load_state(state["counts"])
        prioritization = self._prioritization.with_alpha(state["alpha"])
        max_priority = float(state["max_priority"])
        filled = min(state["written"], self._ring.capacity)
        for name in ("priorities", "masses"):
            _check_masses(name, state[name], filled)
        with self._lock:
            self._storage.load_state(state)
            ready = self._ring.ready_slots()
            masses = np.zeros(self._ring.capacity)
            masses[ready] = state["masses"][ready]
            self._tree.set(np.arange(self._ring.capacity), masses)
            self._priorities[:filled] = state["priorities"]
            self._priorities[filled:] = 0.0
            self._prioritization, self._max_priority = prioritization, max_priority
            self._rng, self._guard, self._counts = rng, guard, counts

    # -- parts of the above ---------------------------------------------------------------------

    def _initialize(self, slots: Int64s, out: Float64s) -> int:
        """Priorities of new transitions, into `out`; how many TD errors were not finite."""
        if self._initial_priority == "max":
            out.fill(self._max_priority)
        elif self._initial_priority == "given":
            out[:] = self._storage.stored["extras.priority"][slots]
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                out[:] = self._prioritization.priorities(self._storage.td_errors(slots))
            finite = out <= LARGEST_PRIORITY
            self._max_priority = max(self._max_priority, out.max(where=finite, initial=0.0))
            out[~finite] = self._max_priority
            return len(out) - int(np.count_nonzero(finite))
        return 0

    def _require_mass(self) -> None:
        if not self._tree.total > 0.0:
            raise RuntimeError(
                f"no transition can be drawn yet: of {self._ring.written} rows that were added, "
                f"{self._ring.num_ready} start a complete n-step window and none has a positive "
                "mass; add more fragments first"
            )

    def _gather(
        self, slots: Int64s, masses: Float64s, beta: float, normalization: str | None
    ) -> TransitionBatch:
        unit = unit_mass(
            normalization,
            masses,
            total=self._tree.total,
            smallest=self._tree.min,
            size=self._ring.num_ready,
        )
        weights = self._allocate((len(slots),), np.float32)
        weights[:] = importance_weights(masses, unit, beta)
        if normalization == "buffer":
            np.minimum(weights, 1.0, out=weights)
        lengths = self._n_step.draw(len(slots), self._rng)
        batch = self._storage.gather(slots, lengths, weights)
        self._counts.note_sample(batch)
        return batch


def _check_choices(
    initial_priority: str, normalization: str | None, decay: float, rows: RowSpec
) -> None:
    if initial_priority not in INITIAL_PRIORITIES:
        raise ValueError(
            f"initial_priority must be one of {INITIAL_PRIORITIES}: got {initial_priority!r}"
        )
    if initial_priority == "given" and rows.extras.get("priority", ((1,),))[0] != ():
        raise ValueError(
            "initial_priority='given' needs the extra column 'priority' of shape (): declare it in "
            f"RowSpec.extras, which has {dict(rows.extras)}"
        )
    if normalization not in WEIGHT_NORMALIZATIONS:
        raise ValueError(
            f"weight_normalization must be one of {WEIGHT_NORMALIZATIONS}: got {normalization!r}"
        )
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"max_priority_decay must be in (0, 1]: got {decay}")


def _check_beta(beta: float) -> None:
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta must be in [0, 1]: got {beta}")


def _check_given(fragment: Fragment) -> None:
    priorities = np.asarray(fragment.extras.get("priority", np.nan))
    valid = (priorities >= 0.0) & (priorities <= LARGEST_PRIORITY)
    if not (valid | fragment.reset).all():
        raise ValueError(
            "the extra column 'priority' must be there, finite and not negative: "
            f"got {priorities[~valid][:1]}"
        )


def _check_update(ids: Any, td_errors: Any) -> tuple[Int64s, Array]:
    ids, td_errors = np.asarray(ids), np.asarray(td_errors)
    if ids.ndim != 1 or ids.shape != td_errors.shape:
        raise ValueError(
            f"ids and td_errors must be one-dimensional and of one length: got {ids.shape} and "
            f"{td_errors.shape}"
        )
    if (ids.dtype.kind not in "iu" or td_errors.dtype.kind not in "iuf") and len(ids):
        raise TypeError(
            f"ids must be integers and td_errors real numbers: got {ids.dtype} and "
            f"{td_errors.dtype}; hand back the ids of the TransitionBatch unchanged"
        )
    return np.ascontiguousarray(ids, np.int64), td_errors


def _check_masses(name: str, values: Array, size: int) -> None:
    if values.shape != (size,) or not np.isfinite(values).all() or (values < 0.0).any():
        raise ValueError(f"{name} of the state must be {size} finite numbers, none negative")
