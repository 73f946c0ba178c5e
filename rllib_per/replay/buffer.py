# SPDX-License-Identifier: MIT
"""PrioritizedReplayBuffer: storage, a tree of masses, and a random generator."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Allocator, Array, Int64s
from rllib_per.replay.arguments import (
    check_beta,
    check_choices,
    check_draw,
    check_given,
    check_update,
)
from rllib_per.replay.columns import require_fragment
from rllib_per.replay.draw import Drawn, Proportional, Uniform, weigh
from rllib_per.replay.fair_lock import FairLock
from rllib_per.replay.fragment import Fragment, RowSpec, TransitionBatch
from rllib_per.replay.metrics import ReplayCounts
from rllib_per.replay.priority_rule import PriorityRule
from rllib_per.replay.rank import Rank
from rllib_per.replay.recycling import RecyclingAllocator
from rllib_per.replay.snapshot import PIECE_BYTES, Snapshot
from rllib_per.replay.storage import Storage
from rllib_per.replay.units import NStep
from rllib_per.settings.replay import Prioritized, TransitionSettings
from rllib_per.settings.rules import Bound, Count, rule_of

# 2^40 rows may follow.
_FIRST_ID = Bound(0, 2**63 - 2**40, is_integer=True)
_SEED = rule_of(Count | None)

DRAWS: dict[str, type[Proportional]] = {draw.NAME: draw for draw in (Proportional, Rank, Uniform)}


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
        prioritization, alpha, priority_epsilon, priority, priority_clip, initial_priority,
        max_priority_decay, weight_normalization, stratified, gather_threads: As
            `settings.replay.Prioritized` says. "uniform" is a prioritization, too.
        reward_clip: Clip stored rewards to ± this; None: as they come.
        seed: Of the draws.
        first_id: The id of the first row ever; of a shard, `ids.first_id` makes it.
        allocator: Makes a batch's arrays from (shape, dtype), for pinned memory and the like;
            None: memory of batches that nobody holds any more is used again.

    Raises:
        ValueError, TypeError: An argument is out of range.
        MemoryError: The capacity can't fit; the message has the bytes that it needs.
    """

    def __init__(
        self,
        capacity: int,
        rows: RowSpec,
        *,
        n_step: int | tuple[int, int] = TransitionSettings.n_step,
        gamma: float = TransitionSettings.gamma,
        prioritization: str = Prioritized.prioritization,
        alpha: float = Prioritized.alpha,
        priority_epsilon: float = Prioritized.priority_epsilon,
        priority: str = Prioritized.priority,
        priority_clip: float = Prioritized.priority_clip,
        initial_priority: str = Prioritized.initial_priority,
        max_priority_decay: float = Prioritized.max_priority_decay,
        reward_clip: float | None = None,
        weight_normalization: str | None = Prioritized.weight_normalization,
        stratified: bool = Prioritized.stratified,
        gather_threads: int = Prioritized.gather_threads,
        seed: int | None = None,
        first_id: int = 0,
        allocator: Allocator | None = None,
    ) -> None:
        rule = PriorityRule(alpha, priority_epsilon, priority, priority_clip)
        check_choices(prioritization, initial_priority, weight_normalization, rows)
        draw_class = DRAWS[prioritization]
        _FIRST_ID.check("first_id", first_id)
        _SEED.check("seed", seed)
        self._allocate = RecyclingAllocator() if allocator is None else allocator
        self._storage = Storage(
            capacity,
            rows,
            NStep(n_step, gamma),
            with_q=initial_priority == "td_error",
            reward_clip=reward_clip,
            first_id=first_id,
            gather_threads=gather_threads,
            allocator=self._allocate,
            bytes_beside=draw_class.BYTES_PER_SLOT,
        )
        self._ring = self._storage.ring
        self._draw = draw_class(capacity, rule, max_priority_decay)
        self._initial_priority = initial_priority
        self._normalization = weight_normalization
        self._stratified = stratified
        self._rng = np.random.default_rng(seed)
        self._counts = ReplayCounts()
        self._lock = FairLock()
        self._lineage = uuid.uuid4().hex

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

        A stream goes on where its last fragment ended if `first_step` says so; any other number,
        larger or smaller, is a gap (see `Fragment`): open windows end like a truncation, and a new
        history starts. O(rows).

        Raises:
            ValueError: The fragment does not fit; the buffer has not changed.
            TrainingDivergedError: Too many initial TD errors were not finite; the rows are in.
            TypeError: It is no fragment.
        """
        require_fragment(fragment)
        with self._lock:
            if self._initial_priority == "given":
                check_given(fragment)
            slots, num_gone = self._storage.add(fragment)
            num_new = len(slots) - num_gone
            self._counts.num_added += num_new
            if not len(slots):
                return 0
            if self._initial_priority == "td_error":
                td_errors = self._storage.td_errors(slots[num_gone:])
                priorities, num_non_finite = self._draw.of_new(td_errors)
                self._draw.replace(slots, num_gone, priorities)
                self._draw.guard.count(num_new, num_non_finite)
            elif self._initial_priority == "given":
                given = self._storage.stored["extras.priority"][slots[num_gone:]]
                self._draw.replace(slots, num_gone, self._draw.of_given(given))
            else:
                self._draw.replace(slots, num_gone, self._draw.largest)
            return num_new

    def sample(self, batch_size: int, beta: float) -> TransitionBatch:
        """Draw transitions with probability proportional to mass, with replacement.

        P(i) = m_i / Σ m_k (eq. 1); w_i = (N·P(i))^-β, scaled as asked (§3.4; decision 0010).
        A transition of zero mass is never drawn, and only a priority of 0 has one (decision 0018).
        O(B·(log N + frames)).

        Args:
            batch_size: B >= 1, in transitions.
            beta: β in [0, 1].

        Raises:
            ValueError, TypeError: An argument is out of range, or of another kind.
            RuntimeError: No transition can be drawn yet.
        """
        check_draw(batch_size, beta)
        with self._lock:
            self._require_mass()
            drawn = self._draw.sample(batch_size, self._rng, self._stratified)
            return self._gather(drawn, beta, self._normalization)

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
        check_beta(beta)
        with self._lock:
            self._require_mass()
            return self._gather(self._draw.at(places), beta, None)

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
        ids, td_errors = check_update(ids, td_errors)
        with self._lock:
            slots, num_stale = self._ring.resolve(ids)
            self._counts.num_stale += num_stale
            if len(slots):
                self._draw.update(slots, td_errors)

    def __len__(self) -> int:
        """Transitions whose window is complete: all that can be drawn, and those of priority 0."""
        return self._ring.num_ready

    # -- settings and figures ----------------------------------------------------------------

    @property
    def rows(self) -> RowSpec:
        """What a row consists of."""
        return self._storage.rows

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return self._ring.capacity

    @property
    def alpha(self) -> float:
        """The exponent. A new alpha gives every stored transition its new mass, exactly."""
        return self._draw.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        with self._lock:
            self._draw.change_alpha(alpha, self._ring.ready_slots())

    @property
    def total_mass(self) -> float:
        """Sum of the masses of all transitions that can be drawn."""
        with self._lock:
            return self._draw.total

    @property
    def smallest_mass(self) -> float:
        """The smallest positive mass; infinite where there is none."""
        with self._lock:
            return self._draw.smallest

    def metrics(self) -> dict[str, float]:
        """Figures of now, of the newest batch, and since the beginning (`..._lifetime`)."""
        with self._lock:
            return {
                "num_transitions": float(self._ring.num_ready),
                "capacity": float(self._ring.capacity),
                "alpha": self.alpha,
                "max_priority": self._draw.largest,
                "num_gaps_lifetime": float(self._ring.num_gaps),
                "num_non_finite_updates_lifetime": float(self._draw.guard.num_non_finite_lifetime),
                **self._counts.metrics(self._ring.first_id + self._ring.written),
            }

    # -- state -------------------------------------------------------------------------------

    @property
    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of the state are arrays."""
        return (*self._storage.state_arrays, *self._draw.ARRAYS)

    def state(self) -> dict[str, Any]:
        """A copy of everything that decides what comes next: arrays, and values for JSON."""
        with self._lock:
            return {**self._storage.state(), **self._small_arrays(), **self._values()}

    def snapshot(self) -> Snapshot:
        """This moment, for `ArchiveWriter`, which then asks `copy_rows` for what is large.

        O(rows) in time and memory, 40 bytes per row whatever the size of a frame; columns that
        are together not larger than a piece are copied too.
        """
        with self._lock:
            arrays = self._small_arrays()
            columns = {n: (c.dtype, c.shape[1:]) for n, c in self._storage.stored.items()}
            small = self._storage.num_bytes <= PIECE_BYTES
            copied = self._storage.copy_columns() if small else {}
            return Snapshot(self._lineage, self._values(), arrays, columns, copied)

    def copy_rows(self, name: str, first: int, stop: int) -> tuple[int, Array]:
        """A column's rows by sequence number; see `snapshot.CopyRows`."""
        with self._lock:
            return self._storage.copy_rows(name, first, stop)

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError or ValueError if the state is of another kind of buffer, or damaged."""
        self._storage.check_state(state)
        self._draw.check_state(state, min(state["written"], self._ring.capacity))

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave: the draws that follow are the same.

        Ids keep this buffer's own shard and incarnation. Where batches of before the restore may
        still be in flight, a new incarnation makes their answers stale.

        Args:
            state: As `state` or `checkpoints.archive_reader` gave it.
        Raises:
            KeyError, ValueError: It is of another kind of buffer, or incomplete; nothing has
                changed.
            CheckpointError: A file could not be read any more; the buffer is empty then.
        """
        rng = self._rng if state["rng"] is None else np.random.default_rng()
        rng.bit_generator.state = state["rng"] or rng.bit_generator.state
        counts = ReplayCounts()
        counts.load_state(state["counts"])
        with self._lock:
            self.check_state(state)
            self._lineage = uuid.uuid4().hex
            self._storage.load_links(state)
            try:
                self._storage.load_columns(state)
            finally:
                self._draw.load_state(state, self._ring.ready_slots())
            self._rng, self._counts = rng, counts

    # -- parts of the above ---------------------------------------------------------------------

    def _values(self) -> dict[str, Any]:
        """What of the state JSON can hold."""
        return {
            **self._storage.values(),
            **self._draw.values(),
            "rng": self._rng.bit_generator.state,
            "counts": self._counts.state(),
        }

    def _small_arrays(self) -> dict[str, Array]:
        """A copy of all arrays but the columns."""
        filled = min(self._ring.written, self._ring.capacity)
        return self._storage.links() | self._draw.arrays(filled)

    def _require_mass(self) -> None:
        if not self._draw.total > 0.0:
            raise RuntimeError(
                f"no transition can be drawn yet: of {self._ring.written} rows that were added, "
                f"{self._ring.num_ready} start a complete n-step window and none has a positive "
                "mass; add more fragments first"
            )

    def _gather(self, drawn: Drawn, beta: float, normalization: str | None) -> TransitionBatch:
        size = len(drawn.slots)
        weights = self._allocate((size,), np.float32)
        num_ready = self._ring.num_ready
        weigh(weights, drawn, self._draw, size=num_ready, beta=beta, normalization=normalization)
        lengths = self._storage.unit.draw_lengths(size, self._rng)
        batch = self._storage.gather(drawn.slots, lengths, weights)
        self._counts.note_sample(batch)
        return batch
