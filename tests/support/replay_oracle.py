# SPDX-License-Identifier: MIT
"""The replay buffer's naive specification: every row ever written, as objects."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(eq=False)
class OracleRow:
    """One row, its neighbours in its frame history, and what became of it."""

    sequence: int
    frame: np.ndarray
    previous: Any = None
    following: Any = None
    action: int = 0
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    is_transition: bool = False  # it has an action
    is_last: bool = False  # the history ends with its frame
    is_torn: bool = False  # the frames before it are unknown
    priority: float | None = None  # given when it became sampleable


@dataclass
class OracleStream:
    newest: OracleRow
    next_step: int


class OracleBuffer:
    """What PrioritizedReplayBuffer must do, in O(everything)."""

    def __init__(
        self, capacity, stack=None, padding="zero", n_step=1, gamma=0.9, alpha=0.6, epsilon=0.25
    ):
        self.capacity = capacity
        self.stack = stack or 1
        self.has_stack_axis = stack is not None
        self.padding = padding
        self.lengths = range(n_step[0], n_step[1] + 1) if isinstance(n_step, tuple) else [n_step]
        self.gamma, self.alpha, self.epsilon = gamma, alpha, epsilon
        self.rows: list[OracleRow] = []
        self.streams: dict[int, OracleStream] = {}
        self.max_priority = 1.0
        self.num_stale = self.num_gaps = 0

    # -- writing -----------------------------------------------------------------------------

    def add(self, fragment):
        """How many transitions became sampleable."""
        before = set(self.sampleable())
        num_rows, num_streams = fragment.rewards.shape
        oldest = len(self.rows) + (num_rows + 1) * num_streams - self.capacity
        for n, stream_id in enumerate(fragment.stream_ids.tolist()):
            stream = self.streams.get(stream_id)
            first_step = int(fragment.first_step[n])
            if stream and stream.next_step == first_step and stream.newest.sequence >= oldest:
                continue
            if stream:
                stream.newest.is_last = True
                self.num_gaps += 1
            first = self._write(fragment.obs[0, n])
            first.is_torn = first_step != 0
            self.streams[stream_id] = OracleStream(first, first_step)
        for t in range(num_rows):
            for n, stream_id in enumerate(fragment.stream_ids.tolist()):
                self._step(self.streams[stream_id], fragment, t, n)
        new = [row for row in self.sampleable() if row not in before]
        for row in new:
            row.priority = self.max_priority
        return len(new)

    def _write(self, frame, previous=None):
        row = OracleRow(len(self.rows), frame.copy(), previous)
        self.rows.append(row)
        return row

    def _step(self, stream, fragment, t, n):
        row = stream.newest
        stream.next_step += 1
        if fragment.reset[t, n]:
            row.is_last = True
            stream.newest = self._write(fragment.obs[t + 1, n])
            return
        row.is_transition = True
        row.action = int(fragment.actions[t, n])
        row.reward = float(fragment.rewards[t, n])
        row.terminated = bool(fragment.terminated[t, n])
        row.truncated = bool(fragment.truncated[t, n])
        stream.newest = row.following = self._write(fragment.obs[t + 1, n], row)

    # -- reading -----------------------------------------------------------------------------

    def alive(self, row):
        return row.sequence >= len(self.rows) - self.capacity

    def sampleable(self):
        """Rows that may be drawn, in the order in which they were written."""
        return [row for row in self.rows if self._is_sampleable(row)]

    def _is_sampleable(self, row):
        stacked = self._stacked(row)
        return (
            self.alive(row)
            and row.is_transition
            and all(self.alive(r) for r in stacked)
            and not (len(stacked) < self.stack and stacked[-1].is_torn)
            and self.window(row, max(self.lengths)) is not None
        )

    def _stacked(self, row):
        """The rows whose frames the observation at `row` stacks, newest first."""
        rows = [row]
        while len(rows) < self.stack and rows[-1].previous is not None:
            rows.append(rows[-1].previous)
        return rows

    def observation(self, row):
        frames = [r.frame for r in self._stacked(row)]
        filler = np.zeros_like(frames[-1]) if self.padding == "zero" else frames[-1]
        frames += [filler] * (self.stack - len(frames))
        return np.stack(frames[::-1]) if self.has_stack_axis else frames[0]

    def window(self, row, length):
        """(return, bootstrap discount, last row), or None while it is not complete."""
        total = 0.0
        for i in range(length):
            total += self.gamma**i * row.reward
            if row.terminated:
                return total, 0.0, row.following
            ends = row.truncated or row.following.is_last
            row = row.following
            if ends or i + 1 == length:
                return total, self.gamma ** (i + 1), row
            if not row.is_transition:
                return None
        raise AssertionError("unreachable")

    # -- priorities --------------------------------------------------------------------------

    def row_of(self, id_):
        """The sampleable row with this id, or None."""
        row = self.rows[id_]
        return row if row.priority is not None and self._is_sampleable(row) else None

    def update(self, ids, td_errors):
        applied = []
        for id_, td_error in zip(ids, td_errors, strict=True):
            row = self.row_of(id_)
            self.num_stale += row is None
            if row is not None and math.isfinite(td_error):
                row.priority = abs(td_error) + self.epsilon
                applied.append(row.priority)
        self.max_priority = max([self.max_priority, *applied])

    def masses(self):
        """Of all sampleable rows, by id."""
        return {row.sequence: row.priority**self.alpha for row in self.sampleable()}
