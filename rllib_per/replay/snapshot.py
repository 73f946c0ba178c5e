# SPDX-License-Identifier: MIT
"""A buffer at one moment, while it goes on: what is small now, what is large in pieces later.

Rows are named by their sequence numbers. What is large about a row (frame, action, extra columns)
does not change any more once its stream has moved on, until the row is overwritten. So it may be
copied late, as long as the copy comes before the overwriting, and it has to be written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rllib_per.replay.fragment import Array, Int64s
from rllib_per.replay.ring_rows import OPEN, forget_before

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
            first,
            self.arrays["rows"],
            self.arrays["streams"],
            written=self.stop,
            capacity=self.capacity,
            stack=self.values["spec"]["stack"] or 1,
        )
        return replace(self, arrays={**self.arrays, "rows": rows, "streams": streams})


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
