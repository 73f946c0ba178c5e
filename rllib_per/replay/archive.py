# SPDX-License-Identifier: MIT
"""A buffer as a folder of arrays and JSON, of which successive folders share what does not change.

values.json          kind of buffer, counters, generator, and which segments there are
rows.npy             links between rows, rewards, life cycle       by slot, at every save
streams.npy          which streams there are                       at every save
priorities.npy, masses.npy                                         by slot, at every save
<column>.<first>-<stop>.npy   rows of a column by sequence number  once, then a hard link
manifest.json        see `rllib_per.checkpoints.manifest`
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rllib_per.checkpoints.arrays import write_array
from rllib_per.checkpoints.durable import Fingerprint, durable_file
from rllib_per.checkpoints.manifest import seal
from rllib_per.replay.fragment import Array
from rllib_per.replay.snapshot import CopyRows, Snapshot, copy_in_pieces, rows_by_sequence

VALUES = "values.json"
FORMAT = 1

# What is written, and may be held in memory, at once.
SEGMENT_BYTES = 16 << 20

# Where the newest folder is gone, because its checkpoint failed, the one before it may be there.
_FOLDERS_REMEMBERED = 2


class SaveReport(NamedTuple):
    """What a save cost.

    Attributes:
        num_bytes_written: Bytes that went to the disk.
        num_bytes_shared: Bytes that were there already.
        num_rows_overtaken: Rows that were overwritten before they were copied.
        time_s: From beginning to end.
    """

    num_bytes_written: int
    num_bytes_shared: int
    num_rows_overtaken: int
    time_s: float


class _Sealed(NamedTuple):
    """A segment that will never change."""

    first: int
    stop: int
    name: str
    fingerprint: Fingerprint
    mtime_ns: int


class _Folder:
    """A folder of before, by descriptor: it may have been renamed since."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._sealed: dict[tuple[str, int], _Sealed] = {}

    def __del__(self) -> None:
        os.close(self._descriptor)

    def note(self, column: str, segment: _Sealed) -> None:
        """This sealed segment is there."""
        self._sealed[column, segment.stop] = segment

    def link(self, column: str, first: int, stop: int, folder: Path) -> _Sealed | None:
        """Make a segment that holds these rows appear in `folder` too; None if it can't."""
        segment = self._sealed.get((column, stop))
        if segment is None or segment.first > first:
            return None
        try:
            found = os.stat(segment.name, dir_fd=self._descriptor, follow_symlinks=False)
            if (found.st_size, found.st_mtime_ns) != (
                segment.fingerprint.num_bytes,
                segment.mtime_ns,
            ):
                return None  # Somebody has changed it.
            os.link(segment.name, folder / segment.name, src_dir_fd=self._descriptor)
        except OSError:  # It was deleted, or is on another file system.
            return None
        return segment


class ArchiveWriter:
    """Writes snapshots of one buffer, each into a folder of its own, and each segment once.

    Args:
        segment_bytes: The largest column's bytes per segment, at most.
    """

    def __init__(self, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._segment_bytes = segment_bytes
        self._lineage = ""
        self._folders: list[_Folder] = []

    def write(self, snapshot: Snapshot, copy_rows: CopyRows, folder: Path) -> SaveReport:
        """Fill the empty `folder`, and sync and seal it.

        Raises:
            OSError: The disk is full, or the like; `folder` is to be removed then.
        """
        if snapshot.lineage != self._lineage:
            self._lineage, self._folders = snapshot.lineage, []
        save = _Save(snapshot, copy_rows, folder, self._folders, self._segment_bytes)
        report = save.run()
        self._folders = [save.here, *self._folders[: _FOLDERS_REMEMBERED - 1]]
        return report


class _Save:
    """One save on its way."""

    def __init__(
        self,
        snapshot: Snapshot,
        copy_rows: CopyRows,
        folder: Path,
        before: list[_Folder],
        segment_bytes: int,
    ) -> None:
        self.here = _Folder(folder)
        self._snapshot, self._copy_rows, self._path = snapshot, copy_rows, folder
        self._before = before
        self._row_bytes = {
            name: max(math.prod(shape) * np.dtype(dtype).itemsize, 1)
            for name, (dtype, shape) in snapshot.columns.items()
        }
        self._segment_rows = max(segment_bytes // max(self._row_bytes.values()), 1)
        self._open_rows = snapshot.open_rows()
        self._first = snapshot.first
        self._files: dict[str, Fingerprint] = {}
        self._segments: dict[str, list[tuple[int, int]]] = {name: [] for name in snapshot.columns}
        self._num_bytes_shared = 0

    def run(self) -> SaveReport:
        """Columns first, for rows may be overwritten meanwhile; then what says which are there."""
        began_s = time.monotonic()
        size = self._segment_rows
        for start in range(self._first // size * size, self._snapshot.stop, size):
            for column in self._snapshot.columns:
                self._save_segment(column, start, min(start + size, self._snapshot.stop))
        snapshot = self._snapshot.without_rows_before(self._first)
        for name, array in snapshot.arrays.items():
            self._files[f"{name}.npy"] = write_array(self._path / f"{name}.npy", array)
        values = {
            "format": FORMAT,
            "first": self._first,
            "segments": {
                name: [segment for segment in segments if segment[1] > self._first]
                for name, segments in self._segments.items()
            },
            "values": snapshot.values,
        }
        with durable_file(self._path / VALUES) as file:
            file.write(json.dumps(values).encode())
            self._files[VALUES] = file.fingerprint
        seal(self._path, self._files)
        return SaveReport(
            sum(file.num_bytes for file in self._files.values()) - self._num_bytes_shared,
            self._num_bytes_shared,
            self._first - self._snapshot.first,
            time.monotonic() - began_s,
        )

    def _save_segment(self, column: str, start: int, stop: int) -> None:
        first = max(start, self._first)
        if first >= stop:
            return  # All of it was overwritten meanwhile.
        segment = self._link(column, first, stop)
        if segment is None:
            segment = self._write(column, first, stop)
        if segment is None:
            return
        self._segments[column].append((segment.first, segment.stop))
        self._files[segment.name] = segment.fingerprint
        if self._is_sealed(segment.first, stop):
            self.here.note(column, segment)

    def _is_sealed(self, first: int, stop: int) -> bool:
        """Whether no stream will write there any more, nor this grid hold more rows of it."""
        low, high = np.searchsorted(self._open_rows, (first, stop))
        return bool(stop % self._segment_rows == 0 and low == high)

    def _link(self, column: str, first: int, stop: int) -> _Sealed | None:
        for folder in self._before:
            segment = folder.link(column, first, stop, self._path)
            if segment is not None:
                self._num_bytes_shared += segment.fingerprint.num_bytes
                return segment
        return None

    def _write(self, column: str, first: int, stop: int) -> _Sealed | None:
        kept, pieces = self._copy(column, first, stop)
        if kept > first:
            self._first = kept
        if kept >= stop:
            return None
        name = f"{column}.{kept:012d}-{stop:012d}.npy"
        fingerprint = write_array(self._path / name, _joined(pieces))
        mtime_ns = (self._path / name).stat().st_mtime_ns
        return _Sealed(kept, stop, name, fingerprint, mtime_ns)

    def _copy(self, column: str, first: int, stop: int) -> tuple[int, list[Array]]:
        copied = self._snapshot.copied.get(column)
        if copied is not None:
            return first, [rows_by_sequence(copied, first, stop, self._snapshot.capacity)]
        return copy_in_pieces(self._copy_rows, column, self._row_bytes[column], first, stop)


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
