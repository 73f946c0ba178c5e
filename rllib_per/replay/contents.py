# SPDX-License-Identifier: MIT
"""What a replay buffer holds: figures of it, its state, snapshots for archives, and pickles."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rllib_per.arrays import Allocator, Array
from rllib_per.replay._ring import Ring
from rllib_per.replay.draw import Proportional
from rllib_per.replay.fair_lock import FairLock
from rllib_per.replay.fragment import RowSpec
from rllib_per.replay.metrics import ReplayCounts
from rllib_per.replay.recycling import RecyclingAllocator
from rllib_per.replay.snapshot import PIECE_BYTES, Snapshot
from rllib_per.replay.steps import Steps
from rllib_per.replay.storage import Storage

# What a copy makes for itself, or from the rest.
_MADE_AGAIN = ("_storage", "_ring", "_lock", "_lineage", "_allocate")


def new_lineage() -> str:
    """See `Snapshot.lineage`."""
    return uuid.uuid4().hex


class ReplayContents:
    """What `PrioritizedReplayBuffer` holds: its figures, its state, and copies of it.

    `pickle` and `copy.deepcopy` give a buffer whose draws, with the same calls, are those of the
    original from that moment on. The copy has its own lock and threads, and its own memory for
    batches; an allocator of the user's is kept.
    """

    _make_storage: Callable[..., Storage]
    _storage: Storage
    _ring: Ring
    _draw: Proportional
    _rng: np.random.Generator
    _counts: ReplayCounts
    _steps: Steps
    _lock: FairLock
    _lineage: str
    _allocate: Allocator

    def __len__(self) -> int:
        """Transitions whose window is complete: all that can be drawn, and those of priority 0."""
        return self._ring.num_ready

    def __repr__(self) -> str:
        steps = self._storage.window.n_step
        shortest, longest = steps.shortest, steps.longest
        columns = (self._ring.rows, *self._storage.stored.values())
        figures = {
            "capacity": self.capacity,
            "filled": min(self._ring.written, self.capacity),
            "alpha": self.alpha,
            "n_step": longest if shortest == longest else (shortest, longest),
            "num_bytes": sum(column.nbytes for column in columns)
            + self.capacity * self._draw.BYTES_PER_SLOT,
        }
        text = ", ".join(f"{name}={value}" for name, value in figures.items())
        return f"{type(self).__name__}({text})"

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

        The next `add_step` begins new histories, for the environments are others, or went on.
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
            self._lineage = new_lineage()
            self._storage.load_links(state)
            try:
                self._storage.load_columns(state)
            finally:
                self._draw.load_state(state, self._ring.ready_slots())
            self._rng, self._counts = rng, counts
            self._steps.forget()

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

    # -- pickles -----------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """A copy of this moment, so that other threads may go on."""
        with self._lock:
            others = {n: v for n, v in vars(self).items() if n not in _MADE_AGAIN}
            is_ours = isinstance(self._allocate, RecyclingAllocator)
            return {
                "rows": self._storage.state(),
                "allocator": None if is_ours else self._allocate,
                "others": copy.deepcopy(others),
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state["others"])
        self._allocate = state["allocator"] or RecyclingAllocator()
        self._storage = self._make_storage(allocator=self._allocate)
        self._storage.load_links(state["rows"])
        self._storage.load_columns(state["rows"])
        self._ring = self._storage.ring
        self._lock, self._lineage = FairLock(), new_lineage()

    def __deepcopy__(self, _: dict[int, Any]) -> Any:
        other = type(self).__new__(type(self))
        other.__setstate__(self.__getstate__())
        return other
