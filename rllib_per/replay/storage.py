# SPDX-License-Identifier: MIT
"""The ring: every frame once; stacks and n-step windows are put together when they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from rllib_per.arrays import Allocator, Array, Int64s
from rllib_per.replay._gather import put, take
from rllib_per.replay._ring import ROW_DTYPE, Ring
from rllib_per.replay.columns import FragmentColumns
from rllib_per.replay.fragment import (
    Fragment,
    FrameSpec,
    RowSpec,
    TransitionBatch,
)
from rllib_per.replay.leaves import from_leaves, leaves_of
from rllib_per.replay.memory import require_bytes
from rllib_per.replay.snapshot import pieces_of, rows_by_sequence
from rllib_per.replay.windows import NStep, NStepWindow, Windows
from rllib_per.settings.replay import Prioritized
from rllib_per.settings.rules import PositiveFloat, check, rule_of

_INT64 = np.dtype(np.int64)
_REWARD_CLIP = rule_of(PositiveFloat | None)
_BYTES_PER_THREAD = 1 << 18  # a thread with less to copy costs more than it brings


class Changes(NamedTuple):
    """Slots whose mass changes: the first `num_gone` leave, the others come."""

    slots: Int64s
    num_gone: int


class _Leaf:
    """One leaf's frames, and which of them make an observation.

    Args:
        path: Of the leaf.
        frames: By slot.
        spec: What they stack.
        longest: The longest stack of any leaf, whose slots `choose` is given.
        is_repeated: Those slots repeat an episode's first frame, and have no -1.
    """

    def __init__(
        self, path: str, frames: Array, spec: FrameSpec, *, longest: int, is_repeated: bool
    ) -> None:
        self.path, self.frames = path, frames
        self.shape = frames.shape[1:] if spec.stack is None else (spec.stack, *frames.shape[1:])
        self._stack, self._longest = spec.stack or 1, longest
        self._repeats = spec.stack_padding == "repeat" and not is_repeated and self._stack > 1

    def choose(self, slots: Int64s) -> Int64s:
        """(B * stack,) out of (B * longest,); -1 is a frame of zeros."""
        if self._stack < self._longest:
            slots = slots.reshape(-1, self._longest)[:, -self._stack :].ravel()
        if self._repeats:
            stacks = slots.reshape(-1, self._stack)
            first = np.count_nonzero(stacks < 0, axis=1)  # Padding comes before all frames.
            oldest = np.take_along_axis(stacks, first[:, None], axis=1)
            slots = np.where(stacks < 0, oldest, stacks).ravel()
        return slots


class Storage:
    """Rows of experience, and batches of transitions made from them.

    Args:
        capacity: Rows; a frame that only ends an episode needs one too.
        rows: What a row consists of.
        n_step: The windows.
        with_q: Keep q_taken and q_max, for `td_errors`.
        reward_clip: Rewards are clipped to [-reward_clip, reward_clip] on writing; None: not.
        first_id: The id of the first row ever.
        gather_threads: Threads that copy frames into a batch.
        allocator: Makes a batch's arrays from (shape, dtype), for pinned memory and the like.
        bytes_beside: Bytes per row that others allocate, counted into what must fit.

    Raises:
        ValueError, TypeError: An argument is out of range.
        MemoryError: The capacity can't fit; nothing has been allocated.
    """

    def __init__(
        self,
        capacity: int,
        rows: RowSpec,
        n_step: NStep,
        *,
        with_q: bool = False,
        reward_clip: float | None = None,
        first_id: int = 0,
        gather_threads: int = 1,
        allocator: Allocator,
        bytes_beside: int = 0,
    ) -> None:
        check(Prioritized, capacity=capacity, gather_threads=gather_threads)
        _check(capacity, rows, n_step, reward_clip)
        self.columns = columns = FragmentColumns(rows, with_q)
        stored = {
            **{_frames(path): column for path, column in columns.frames.items()},
            "actions": columns.actions,
            **{column.name: column for column in columns.q},
            **{f"extras.{column.name}": column for column in columns.extras},
        }
        row_bytes = ROW_DTYPE.itemsize + sum(column.num_bytes for column in stored.values())
        require_bytes(capacity, row_bytes + bytes_beside)
        self.rows = rows
        repeats = all(frame.stack_padding == "repeat" for frame in rows.frames.values())
        self.window = NStepWindow(n_step, rows.longest_stack, repeats_padding=repeats)
        self.ring = Ring(capacity, self.window.behind + 1, self.window.ahead, first_id)
        self.stored = {
            name: np.zeros((capacity, *column.shape), column.dtype)
            for name, column in stored.items()
        }
        self._reward_clip = np.inf if reward_clip is None else float(reward_clip)
        self._allocate = allocator
        self._leaves = [
            _Leaf(
                path,
                self.stored[_frames(path)],
                frame,
                longest=rows.longest_stack,
                is_repeated=repeats,
            )
            for path, frame in rows.frames.items()
        ]
        self._threads = gather_threads
        self._pool = ThreadPoolExecutor(gather_threads - 1) if gather_threads > 1 else None

    def add(self, fragment: Fragment) -> Changes:
        """Write a fragment; if it is refused, nothing has changed.

        Raises:
            ValueError: The fragment does not fit the row spec or the ring, or has a reward that is
                not finite.
        """
        fragment = self.columns.fit(fragment)
        row_slots, frame_slots, changed, num_gone = self.ring.append(
            fragment.stream_ids,
            fragment.first_step,
            fragment.rewards,
            fragment.terminated.view(np.uint8),
            fragment.truncated.view(np.uint8),
            fragment.reset.view(np.uint8),
            self._reward_clip,
        )
        frames = leaves_of(fragment.obs)
        for leaf in self._leaves:
            put(leaf.frames, frame_slots, frames[leaf.path])
        put(self.stored["actions"], row_slots, fragment.actions)
        if fragment.q_taken is not None and fragment.q_max is not None:
            put(self.stored["q_taken"], row_slots, fragment.q_taken)
            put(self.stored["q_max"], frame_slots, fragment.q_max)
        for name, values in fragment.extras.items():
            put(self.stored[f"extras.{name}"], row_slots, values)
        return Changes(changed, num_gone)

    def gather(self, slots: Int64s, lengths: Int64s, importance_weights: Array) -> TransitionBatch:
        """The transitions in `slots`, each with a window of up to `lengths` steps."""
        size = len(slots)
        windows = self.window.gather(self.ring, slots, lengths, self._allocate)
        ids = self._allocate((size,), _INT64)
        self.ring.ids(slots, ids)
        obs, next_obs = self._observations(windows)
        return TransitionBatch(
            obs=obs,
            actions=self._take("actions", slots),
            n_step_returns=windows.returns,
            next_obs=next_obs,
            bootstrap_discounts=windows.discounts,
            importance_weights=importance_weights,
            ids=ids,
            extras={c.name: self._take(f"extras.{c.name}", slots) for c in self.columns.extras},
        )

    def td_errors(self, slots: Int64s) -> Array:
        """R + γ^k max_a Q(s', a) - Q(s, a) with the Q-values that came with the rows; float64."""
        lengths = np.full(len(slots), self.window.ahead)
        windows = self.window.gather(self.ring, slots, lengths, self._allocate)
        last = windows.next_obs_slots[self.window.behind :: self.window.behind + 1]
        q_max = self.stored["q_max"][last].astype(np.float64)
        with np.errstate(invalid="ignore"):  # ∞ - ∞ is for the caller to see
            return windows.returns + windows.discounts * q_max - self.stored["q_taken"][slots]

    def _observations(self, windows: Windows) -> tuple[Any, Any]:
        """Those at both ends of the windows."""
        size = len(windows.returns)
        obs: dict[str, Array] = {}
        next_obs: dict[str, Array] = {}
        jobs = []
        for leaf in self._leaves:
            for slots, out in ((windows.obs_slots, obs), (windows.next_obs_slots, next_obs)):
                array = out[leaf.path] = self._allocate((size, *leaf.shape), leaf.frames.dtype)
                jobs.append((leaf.frames, leaf.choose(slots), array))
        self._take_frames(jobs)
        return from_leaves(obs), from_leaves(next_obs)

    def _take(self, name: str, slots: Int64s) -> Array:
        column = self.stored[name]
        out = self._allocate((len(slots), *column.shape[1:]), column.dtype)
        take(column, slots, out)
        return out

    def _take_frames(self, jobs: Sequence[tuple[Array, Int64s, Array]]) -> None:
        """Fill the last array of each job: (frames, slots, out), in as many threads as it pays."""
        threads = 1
        if self._pool is not None:
            num_bytes = sum(out.nbytes for *_, out in jobs)
            threads = min(self._threads, num_bytes // _BYTES_PER_THREAD)
        if self._pool is None or threads < 2:
            for frames, slots, out in jobs:
                take(frames, slots, out)
            return
        pending = []
        for frames, slots, out in jobs:
            bounds = [len(slots) * i // threads for i in range(threads + 1)]
            pending += [
                self._pool.submit(take, frames, slots, out, bounds[i], bounds[i + 1])
                for i in range(1, threads)
            ]
            take(frames, slots, out, 0, bounds[1])
        for future in pending:
            future.result()

    # -- state -------------------------------------------------------------------------------

    @property
    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of the state are arrays."""
        return ("rows", "streams", *self.stored)

    def state(self) -> dict[str, Any]:
        """A copy of all rows: arrays, and values that JSON can hold."""
        return self.values() | self.links() | self.copy_columns()

    def values(self) -> dict[str, Any]:
        """What of the state JSON can hold."""
        return {
            "spec": self._spec(),
            "written": self.ring.written,
            "num_gaps": self.ring.num_gaps,
        }

    def links(self) -> dict[str, Array]:
        """A copy of what is small about all rows: which belong together."""
        filled = min(self.ring.written, self.ring.capacity)
        return {
            "rows": self.ring.rows[:filled].copy(),
            "streams": self.ring.streams().copy(),
        }

    def copy_rows(self, name: str, first: int, stop: int) -> tuple[int, Array]:
        """A copy of a column's rows by sequence number.

        Returns:
            The first of them that is not overwritten, and the rows from that one on.
        """
        capacity = self.ring.capacity
        first = min(max(first, self.ring.written - capacity), stop)
        return first, rows_by_sequence(self.stored[name], first, stop, capacity)

    def copy_columns(self) -> dict[str, Array]:
        """A copy of all columns, by slot."""
        filled = min(self.ring.written, self.ring.capacity)
        return {name: column[:filled].copy() for name, column in self.stored.items()}

    @property
    def num_bytes(self) -> int:
        """Of what `copy_columns` copies."""
        filled = min(self.ring.written, self.ring.capacity)
        return sum(column[:filled].nbytes for column in self.stored.values())

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError, or KeyError, if the state is of another kind of buffer."""
        if state["spec"] != self._spec():
            raise ValueError(
                f"the state must be of the same kind of buffer: this one is {self._spec()}, the "
                f"state is of {state['spec']}; make a buffer with the state's arguments"
            )
        filled = min(state["written"], self.ring.capacity)
        for name, column in self.stored.items():
            expected, given = (filled, *column.shape[1:]), state[name]
            if tuple(given.shape) != expected or given.dtype != column.dtype:
                raise ValueError(
                    f"{name} of the state must be {column.dtype} {expected}: "
                    f"got {given.dtype} {given.shape}"
                )

    def load_links(self, state: Mapping[str, Any]) -> None:
        """Restore what is small of what `state` gave and `check_state` let pass.

        Raises:
            ValueError: The rows contradict each other; nothing has changed.
        """
        self.ring.load(state["written"], state["num_gaps"], state["rows"], state["streams"])

    def load_columns(self, state: Mapping[str, Any]) -> None:
        """Restore the rest.

        Raises:
            CheckpointError: A file can't be read any more; the storage is empty then.
        """
        try:
            for name, column in self.stored.items():
                for slots, rows in pieces_of(state[name]):
                    column[slots] = rows
        except BaseException:
            self.ring.load(0, 0, state["rows"][:0], state["streams"][:0])
            raise

    def _spec(self) -> dict[str, Any]:
        """What decides the layout of the state, in values that JSON can hold."""
        leaves = {
            path: [frame.stack, frame.stack_padding] for path, frame in self.rows.leaves.items()
        }
        return {
            "capacity": self.ring.capacity,
            "stack": self.rows.longest_stack if leaves else self.rows.stack,
            "stack_padding": self.rows.stack_padding,
            **({"leaves": leaves} if leaves else {}),
            "longest_window": self.window.ahead,
            "columns": {
                name: [column.dtype.str, list(column.shape[1:])]
                for name, column in self.stored.items()
            },
        }


def _frames(path: str) -> str:
    """The stored column of a leaf's frames; it is the name of a file, too."""
    return f"frames.{path.replace('/', '.')}" if path else "frames"


def _check(capacity: int, rows: RowSpec, n_step: NStep, reward_clip: float | None) -> None:
    least = n_step.longest + rows.longest_stack
    if capacity < least:
        raise ValueError(
            f"capacity must be at least {least} rows (n_step={n_step.longest} and a stack of "
            f"{rows.longest_stack}): got {capacity}"
        )
    _REWARD_CLIP.check("reward_clip", reward_clip)
