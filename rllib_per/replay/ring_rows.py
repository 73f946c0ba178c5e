# SPDX-License-Identifier: MIT
"""The ring's rows as plain arrays, for what is done with them outside the ring.

The kinds are those of `_ring.pyx`, where their life cycle is.
"""

from __future__ import annotations

import numpy as np

from rllib_per.replay.fragment import Array, Int64s

EMPTY, OPEN, STOP, PENDING, READY, LOST = range(6)


def forget_before(
    first: int, rows: Array, streams: Array, *, written: int, capacity: int, stack: int
) -> tuple[Array, Array]:
    """Copies of rows and streams, as if the rows before sequence number `first` were overwritten.

    Their successors, whose stacks need their frames, can't be drawn any more. O(rows).

    Args:
        rows: By slot, as `Ring.rows`.
        streams: As `Ring.streams()`.
    """
    rows = rows.copy()
    sequences = np.arange(max(written - capacity, 0), written)
    slots = sequences % capacity
    rows["kind"][slots[sequences < first]] = EMPTY
    kept, kept_slots = sequences[sequences >= first], slots[sequences >= first]
    back = rows["back"][kept_slots].astype(np.int64)
    torn = kept_slots[(back > 0) & (kept - back < first)]
    reached = torn
    for _ in range(stack - 1):
        rows["kind"][reached[rows["kind"][reached] == READY]] = LOST
        ahead = rows["ahead"][reached].astype(np.int64)
        reached = (reached + ahead)[ahead > 0] % capacity
    rows["back"][torn] = 0
    rows["torn"][torn] = 1
    return rows, pending_from(first, rows, streams[streams["open"] >= first], capacity)


def pending_from(first: int, rows: Array, streams: Array, capacity: int) -> Array:
    """A copy of `streams` with no pending row before sequence number `first`."""
    streams = streams.copy()
    for stream in streams:
        if stream["num_pending"] == 0 or stream["pending"] >= first:
            continue
        sequence, count = int(stream["open"]), 0
        while count < stream["num_pending"]:
            back = int(rows["back"][sequence % capacity])
            if back == 0 or sequence - back < first:
                break
            sequence, count = sequence - back, count + 1
        stream["pending"], stream["num_pending"] = sequence, count
    return streams


def heads_of(back: Int64s) -> Int64s:
    """For each row where its history begins; rows in the order of their sequence numbers.

    Args:
        back: (R,) distance to the row before; 0, or one that leads out, for a beginning.
    Returns:
        (R,) position of the history's first row. O(R log R).
    """
    positions = np.arange(len(back))
    heads = np.where((back > 0) & (back <= positions), positions - back, positions)
    while True:
        further = heads[heads]
        if (further == heads).all():
            return heads
        heads = further
