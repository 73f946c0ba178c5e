# SPDX-License-Identifier: MIT
"""Experience that carries its identity: a frame says which stream and which frame it is."""

from dataclasses import dataclass, field

import numpy as np

from rllib_per.replay import Fragment, RowSpec

FRAME_SHAPE = (2, 3)


def row_spec(stack=None, stack_padding="zero", **extras):
    """Rows of int32 frames, with the column `number` and further extras."""
    return RowSpec(
        FRAME_SHAPE,
        np.int32,
        stack=stack,
        stack_padding=stack_padding,
        extras={"number": ((), np.int64), **extras},
    )


def frame_of(stream_id, number):
    """Frame `number` of a stream; never all zeros."""
    return np.array([[stream_id + 1, number, 1], [7, stream_id, number]], np.int32)


@dataclass
class Row:
    """What one row of one stream says, apart from its frame."""

    action: int
    reward: float
    terminated: bool = False
    truncated: bool = False
    reset: bool = False


def random_row(rng, *, end=0.15, cut=0.03):
    """A row that ends its episode now and then, in every way there is."""
    terminated, truncated = rng.random(2) < end / 2
    return Row(
        action=int(rng.integers(100)),
        reward=float(rng.integers(-8, 9)),
        terminated=bool(terminated),
        truncated=bool(truncated),
        reset=bool(rng.random() < cut),
    )


@dataclass
class Streams:
    """N streams that count their frames and rows; `fragment` puts rows of theirs together."""

    rng: np.random.Generator
    next_step: dict = field(default_factory=dict)
    _resets: dict = field(default_factory=dict)

    def fragment(self, stream_ids, num_rows, **odds):
        """The next rows of some streams, their ends drawn at random; mostly resets follow ends."""
        rows = [[self._next(s, **odds) for s in stream_ids] for _ in range(num_rows)]
        return self.fragment_of(stream_ids, rows)

    def fragment_of(self, stream_ids, rows):
        """The given rows, (T, N), as the streams' next ones."""
        first = [self.next_step.setdefault(s, 0) for s in stream_ids]
        numbers = np.arange(len(rows) + 1)[:, None] + first
        for s in stream_ids:
            self.next_step[s] += len(rows)
        ids = np.array(stream_ids, np.int64)
        return Fragment(
            stream_ids=ids,
            first_step=np.array(first, np.int64),
            obs=np.array(
                [[frame_of(s, n) for s, n in zip(stream_ids, row, strict=True)] for row in numbers],
                np.int32,
            ),
            actions=_column(rows, "action", np.int64),
            rewards=_column(rows, "reward", np.float32),
            terminated=_column(rows, "terminated", np.bool_),
            truncated=_column(rows, "truncated", np.bool_),
            reset=_column(rows, "reset", np.bool_),
            extras={"number": numbers[:-1]},
        )

    def skip(self, stream_id, num_rows):
        """Lose rows of a stream, as if a fragment had not arrived; repeat them if negative."""
        self.next_step[stream_id] = max(self.next_step.get(stream_id, 0) + num_rows, 0)

    def _next(self, stream_id, **odds):
        row = random_row(self.rng, **odds)
        if self._resets.pop(stream_id, False):
            row.reset = True
        if row.reset:
            row.terminated = row.truncated = False
        elif row.terminated or row.truncated:
            # Not always: a lost life is an end without a reset.
            self._resets[stream_id] = self.rng.random() < 0.7
        return row


def _column(rows, name, dtype):
    return np.array([[getattr(row, name) for row in step] for step in rows], dtype)


def one_stream(rows, stream_id=0, first_step=0):
    """A fragment of one stream from a list of rows."""
    streams = Streams(np.random.default_rng(0), {stream_id: first_step})
    return streams.fragment_of([stream_id], [[row] for row in rows])
