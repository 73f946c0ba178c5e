# SPDX-License-Identifier: MIT
"""A saved replay buffer, and how it is read: as a state that `load_state` takes.

replay.json          how many parts, and what JSON can hold of the facade over them
part-000/            one for each shard; a buffer in one process has one
  values.json        kind of buffer, counters, generator, and which segments there are
  rows.npy           links between rows, rewards, life cycle       by slot, at every save
  streams.npy        which streams there are                       at every save
  priorities.npy, masses.npy                                       by slot, at every save
  <column>.<first>-<stop>.npy   rows of a column by sequence number  once, then a hard link
  manifest.json      see `folders`
manifest.json        lists replay.json and the parts' manifests

Columns stay on the disk until the state is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rllib_per.arrays import Array, Int64s
from rllib_per.checkpoints.files import CheckpointError, read_array, read_versioned, unreadable
from rllib_per.replay._ring import ROW_DTYPE, STREAM_DTYPE
from rllib_per.settings.replay import MAX_SHARDS

INDEX = "replay.json"
VALUES = "values.json"
ARCHIVE_FORMAT = 1

_ARRAYS = {
    "rows": ROW_DTYPE,
    "streams": STREAM_DTYPE,
    "priorities": np.dtype(np.float64),
    "masses": np.dtype(np.float64),
}


def part_folder(folder: Path, part: int) -> Path:
    """Where a part of a saved replay buffer is."""
    return folder / f"part-{part:03d}"


class ArchivedColumn:
    """A column in segments on the disk; a `snapshot.PiecewiseColumn`.

    Args:
        folder: Where they are.
        name: Of the column.
        row: Dtype and shape of a row.
        segments: First and last + 1 sequence number of each, ascending.
        written: Rows ever written.
        capacity: Of the ring.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        row: tuple[str, list[int]],
        segments: list[tuple[int, int]],
        *,
        written: int,
        capacity: int,
    ) -> None:
        self._folder, self._name, self._segments = folder, name, segments
        self.dtype = np.dtype(row[0])
        self._row_shape = tuple(row[1])
        self._written, self._capacity = written, capacity

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, *shape of a row)."""
        return (min(self._written, self._capacity), *self._row_shape)

    def segments(self) -> Iterator[tuple[int, Array]]:
        """(sequence number of its first row, rows) of each, without what was overwritten.

        Raises:
            CheckpointError: One can't be read, or is not what it should be.
        """
        oldest = self._written - self._capacity
        for first, stop in self._segments:
            path = self._folder / f"{self._name}.{first:012d}-{stop:012d}.npy"
            rows = read_array(path, self.dtype, self._row_shape)
            if len(rows) != stop - first:
                raise CheckpointError(f"{path} must hold {stop - first} rows: it has {len(rows)}")
            late = max(oldest - first, 0)
            if first + late < stop:
                yield first + late, rows[late:]

    def pieces(self) -> Iterator[tuple[Int64s, Array]]:
        """Slots, and the rows that go there."""
        for first, rows in self.segments():
            yield np.arange(first, first + len(rows)) % self._capacity, rows


def read_index(folder: Path) -> tuple[int, dict[str, Any]]:
    """How many parts a saved replay buffer has, and the values given to `seal_parts`.

    Raises:
        CheckpointError: It can't be read.
    """
    path = folder / INDEX
    index = read_versioned(path, ARCHIVE_FORMAT)
    with unreadable(path):
        num_parts, values = int(index["num_parts"]), dict(index["values"])
        if not 1 <= num_parts <= MAX_SHARDS:
            raise ValueError(f"{num_parts} parts")
    return num_parts, values


def read_part(folder: Path) -> dict[str, Any]:
    """The state of one buffer or shard out of a checkpoint, for its `load_state`.

    Verify the checkpoint first (`folders.verify`): what is checked here is that the files fit each
    other, not that they are as they were written. O(capacity) memory for what is small about a row;
    columns are read when the state is loaded.

    Raises:
        CheckpointError: A file can't be read or does not fit; the message names it.
    """
    path = folder / VALUES
    read = read_versioned(path, ARCHIVE_FORMAT)
    with unreadable(path):
        values, segments, first = dict(read["values"]), read["segments"], int(read["first"])
        spec, written = values["spec"], int(values["written"])
        columns = {
            name: _column(folder, name, row, segments[name], spec, first, written)
            for name, row in spec["columns"].items()
        }
    arrays = {name: read_array(folder / f"{name}.npy", dtype) for name, dtype in _ARRAYS.items()}
    return values | arrays | columns


def _column(
    folder: Path,
    name: str,
    row: tuple[str, list[int]],
    segments: list[tuple[int, int]],
    spec: dict[str, Any],
    oldest: int,
    written: int,
) -> ArchivedColumn:
    """The column, if its segments follow one another from the oldest row to the newest."""
    capacity = int(spec["capacity"])
    if "/" in name or np.dtype(row[0]).hasobject or capacity < 1:
        raise ValueError(f"{name!r} of {row} in {capacity} rows is no column")
    segments = [(int(first), int(stop)) for first, stop in segments]
    borders = [first for first, _ in segments] + [written]
    whole = borders[0] <= max(oldest, 0) and [stop for _, stop in segments] == borders[1:]
    if not whole or any(not 0 <= first < stop for first, stop in segments):
        raise ValueError(
            f"the segments of {name} must go from row {oldest} to {written}: got {segments}"
        )
    return ArchivedColumn(folder, name, row, segments, written=written, capacity=capacity)
