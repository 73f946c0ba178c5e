# SPDX-License-Identifier: MIT
"""A buffer at one moment, while it goes on: what is small now, what is large in pieces later.

Rows are named by their sequence numbers. What is large about a row (frame, action, extra columns)
does not change any more once its stream has moved on, until the row is overwritten. So it may be
copied late, as long as the copy comes before the overwriting, and it has to be written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rllib_per.arrays import Array, Int64s

# The kinds of a row; their life cycle is in `_ring.pyx`.
EMPTY, OPEN, STOP, PENDING, READY, LOST = range(6)

# How much is copied at once, while nobody else can use the buffer.
PIECE_BYTES = 4 << 20

# (column, first, stop) -> the first row that was still there, and a copy from that one on.
CopyRows = Callable[[str, int, int], tuple[int, Array]]


@dataclass(frozen=True)
class Snapshot:
    """What was true at one moment.

    Attributes:
        lineage: Equal for two moments of the same buffer without a restore between them: then a
            sequence number means the same row in both.
        values: What JSON can hold.
        arrays: "rows" and "streams", "priorities" and "masses"; by slot.
        columns: Dtype and shape of a row of each column.
        copied: Those columns, by slot, that were copied at once because they are small.
    """

    lineage: str
    values: dict[str, Any]
    arrays: dict[str, Array]
    columns: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]]
    copied: dict[str, Array]

    @property
    def capacity(self) -> int:
        """Rows that fit the ring."""
        return int(self.values["spec"]["capacity"])

    @property
    def first(self) -> int:
        """Sequence number of the oldest row."""
        return max(self.stop - self.capacity, 0)

    @property
    def stop(self) -> int:
        """Sequence number of the row after the newest."""
        return int(self.values["written"])

    def open_rows(self) -> Int64s:
        """Sequence numbers of the rows that are not complete yet, ascending."""
        slots = np.flatnonzero(self.arrays["rows"]["kind"] == OPEN)
        return np.sort(self.first + (slots - self.first) % self.capacity)

    def without_rows_before(self, first: int) -> Snapshot:
        """As if these rows had been overwritten already."""
        if first <= self.first:
            return self
        rows, streams = forget_before(
            first, self.arrays["rows"], self.arrays["streams"], self.values
        )
        return replace(self, arrays={**self.arrays, "rows": rows, "streams": streams})


# -- columns ---------------------------------------------------------------------------------


class PiecewiseColumn(Protocol):
    """A column that is read a piece at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, *shape of a row)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""

    def pieces(self) -> Iterator[tuple[Int64s, Array]]:
        """Slots, and the rows that go there."""


def pieces_of(column: Array | PiecewiseColumn) -> Iterator[tuple[slice | Int64s, npt.ArrayLike]]:
    """Slots and rows of a column, wherever it is."""
    if isinstance(column, np.ndarray):
        yield slice(0, len(column)), column
    else:
        yield from column.pieces()


def rows_by_sequence(column: Array, first: int, stop: int, capacity: int) -> Array:
    """A copy of the rows with these sequence numbers, from a column by slot."""
    start = first % capacity
    end = start + stop - first
    if end <= capacity:
        return column[start:end].copy()
    return np.concatenate([column[start:], column[: end - capacity]])


def copy_in_pieces(
    copy_rows: CopyRows, name: str, row_bytes: int, first: int, stop: int
) -> tuple[int, list[Array]]:
    """Rows `first` to `stop` of a column, a few megabytes at a time.

    Returns:
        The first row that was still there at the end of it, and the rows from that one on.
    """
    step = max(PIECE_BYTES // row_bytes, 1)
    kept = first
    pieces: list[Array] = []
    for start in range(first, stop, step):
        found, piece = copy_rows(name, start, min(start + step, stop))
        if found > start:  # The ring has overtaken us: all rows before are gone too.
            kept, pieces = found, []
        pieces.append(piece)
    return kept, pieces


# -- rows ------------------------------------------------------------------------------------


def forget_before(
    first: int, rows: Array, streams: Array, values: dict[str, Any]
) -> tuple[Array, Array]:
    """Copies of rows and streams, as if the rows before sequence number `first` were overwritten.

    Their successors, whose stacks need their frames, can't be drawn any more. O(rows).

    Args:
        rows: By slot, as `Ring.rows`.
        streams: As `Ring.streams()`.
        values: The buffer's, with "spec" and "written".
    """
    spec, written = values["spec"], int(values["written"])
    capacity = int(spec["capacity"])
    rows = rows.copy()
    sequences = np.arange(max(written - capacity, 0), written)
    slots = sequences % capacity
    rows["kind"][slots[sequences < first]] = EMPTY
    kept, kept_slots = sequences[sequences >= first], slots[sequences >= first]
    back = rows["back"][kept_slots].astype(np.int64)
    torn = kept_slots[(back > 0) & (kept - back < first)]
    reached = torn
    for _ in range((spec["stack"] or 1) - 1):
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
