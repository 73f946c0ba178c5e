# SPDX-License-Identifier: MIT
"""What `archive` wrote, as a state that `load_state` takes; columns stay on the disk until then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rllib_per.checkpoints.arrays import read_array
from rllib_per.checkpoints.errors import CheckpointError
from rllib_per.replay._ring import ROW_DTYPE, STREAM_DTYPE
from rllib_per.replay.archive import FORMAT, VALUES
from rllib_per.replay.fragment import Array, Int64s

_ARRAYS = {
    "rows": ROW_DTYPE,
    "streams": STREAM_DTYPE,
    "priorities": np.dtype(np.float64),
    "masses": np.dtype(np.float64),
}


@runtime_checkable
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


class ArchivedColumn:
    """A column in segments on the disk.

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


def read_part(folder: Path) -> dict[str, Any]:
    """The state of one buffer or shard out of a checkpoint, for its `load_state`.

    Verify the checkpoint first (`checkpoints.manifest.verify`): what is checked here is that the
    files fit each other, not that they are as they were written. O(capacity) memory for what is
    small about a row; columns are read when the state is loaded.

    Raises:
        CheckpointError: A file can't be read or does not fit; the message names it.
    """
    path = folder / VALUES
    try:
        read = json.loads(path.read_bytes())
        if read["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {read['format']!r}; this version reads {FORMAT}"
            )
        values, segments, first = dict(read["values"]), read["segments"], int(read["first"])
        spec, written = values["spec"], int(values["written"])
        columns = {
            name: _column(folder, name, row, segments[name], spec, first, written)
            for name, row in spec["columns"].items()
        }
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}") from error
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


def pieces_of(column: Array | PiecewiseColumn) -> Iterator[tuple[slice | Int64s, npt.ArrayLike]]:
    """Slots and rows of a column, wherever it is."""
    if isinstance(column, np.ndarray):
        yield slice(0, len(column)), column
    else:
        yield from column.pieces()
