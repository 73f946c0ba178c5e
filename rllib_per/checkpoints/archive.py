# SPDX-License-Identifier: MIT
"""Saves and restores a replay buffer while it is in use; see `archive_reader` for its folder.

Successive folders of one buffer share what does not change.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from rllib_per.arrays import Array
from rllib_per.checkpoints.archive_reader import ARCHIVE_FORMAT, INDEX, VALUES, part_folder
from rllib_per.checkpoints.files import Fingerprint, write_array, write_versioned
from rllib_per.checkpoints.folders import seal
from rllib_per.checkpoints.resharding import read_state
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.snapshot import CopyRows, Snapshot, copy_in_pieces, rows_by_sequence

# What is written, and may be held in memory, at once.
SEGMENT_BYTES = 16 << 20

# Where the newest folder is gone, because its checkpoint failed, the one before it may be there.
_FOLDERS_REMEMBERED = 2

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.0005, 0.02


class SaveReport(NamedTuple):
    """What a save cost.

    Attributes:
        num_bytes_written: Bytes that went to the disk.
        num_bytes_shared: Bytes that were there already.
        num_rows_overtaken: Rows that were overwritten before they were copied.
        time_s: From start to end.
    """

    num_bytes_written: int
    num_bytes_shared: int
    num_rows_overtaken: int
    time_s: float


# Asks a save that is being written what it cost; None: it is not done. Raises what went wrong.
AskReport = Callable[[], SaveReport | None]


class PendingSave:
    """A save of which some is still being written.

    Args:
        parts: Each part's `AskReport`.
        steps: What makes the folder whole once all parts are written, in this order.
    """

    def __init__(self, parts: Sequence[AskReport], *steps: Callable[[], None]) -> None:
        self._parts, self._steps = parts, steps
        self._reports: dict[int, SaveReport] = {}

    @property
    def is_done(self) -> bool:
        """Whether `finish` would not wait; raises what went wrong with a part, such as OSError."""
        for number, ask in enumerate(self._parts):
            if number not in self._reports:
                report = ask()
                if report is not None:
                    self._reports[number] = report
        return len(self._reports) == len(self._parts)

    def finish(self) -> list[SaveReport]:
        """Wait until the folder is whole; what each part cost.

        Raises:
            OSError: The disk is full, or the like; the folder is to be removed then.
            Exception: As `is_done`.
        """
        pause_s = _SHORTEST_PAUSE_S
        while not self.is_done:
            time.sleep(pause_s)
            pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
        for step in self._steps:
            step()
        return [self._reports[number] for number in range(len(self._parts))]

    def then(self, step: Callable[[], None]) -> PendingSave:
        """The same save with one more step at its end."""
        return PendingSave(self._parts, *self._steps, step)


class BufferArchive:
    """Puts a buffer into folders, and back; `archive_reader` says what is in them."""

    def __init__(self, buffer: PrioritizedReplayBuffer) -> None:
        self._buffer = buffer
        self._writer = ArchiveWriter()

    def start_save(self, folder: Path) -> PendingSave:
        """Save this moment into the empty `folder`, while the buffer goes on."""
        part = part_folder(folder, 0)
        part.mkdir()
        return PendingSave(
            [self._writer.start(self._buffer, part)], partial(seal_parts, folder, 1, {})
        )

    def load(self, folder: Path) -> None:
        """Restore what was saved, from one buffer or from shards; verify `folder` first.

        Raises:
            CheckpointError: A file can't be read, or does not fit.
            ValueError, KeyError: It is of another kind of buffer.
        """
        self._buffer.load_state(read_state(folder, 0, [self._buffer.capacity]))


def seal_parts(folder: Path, num_parts: int, values: dict[str, Any]) -> None:
    """Write down what is in `folder`, once all parts are written and sealed.

    Args:
        values: What else is to come back from `read_index`.
    """
    write_versioned(folder / INDEX, ARCHIVE_FORMAT, {"num_parts": num_parts, "values": values})
    seal(folder)


class SaveableBuffer(Protocol):
    """What is needed of a buffer."""

    def snapshot(self) -> Snapshot:
        """This moment."""

    def copy_rows(self, name: str, first: int, stop: int) -> tuple[int, Array]:
        """See `snapshot.CopyRows`."""


class ArchiveWriter:
    """Writes one buffer again and again, each time into an own folder, and each segment once.

    Args:
        segment_bytes: The largest column's bytes per segment, at most.
    """

    def __init__(self, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._segment_bytes = segment_bytes
        self._lineage = ""
        self._folders: list[_SavedFolder] = []
        self._thread = ThreadPoolExecutor(1, "replay checkpoint")

    def start(self, buffer: SaveableBuffer, folder: Path) -> AskReport:
        """Save `buffer` as it is now into the empty `folder`; a thread writes it."""
        written = self._thread.submit(self.write, buffer.snapshot(), buffer.copy_rows, folder)
        return lambda: written.result() if written.done() else None

    def write(self, snapshot: Snapshot, copy_rows: CopyRows, folder: Path) -> SaveReport:
        """Fill the empty `folder`, and sync and seal it.

        Raises:
            OSError: The disk is full, or the like; `folder` is to be removed then.
        """
        if snapshot.lineage != self._lineage:
            self._lineage, self._folders = snapshot.lineage, []
        save = _PartSave(snapshot, copy_rows, folder, self._folders, self._segment_bytes)
        report = save.run()
        self._folders = [save.here, *self._folders[: _FOLDERS_REMEMBERED - 1]]
        return report


class _Segment(NamedTuple):
    """Rows of a column in a file."""

    first: int
    stop: int
    name: str
    fingerprint: Fingerprint
    mtime_ns: int


class _SavedFolder:
    """A folder of an earlier save, by descriptor: it may have been renamed since.

    Attributes:
        sealed: Its segments that will never change, by column and `stop`.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.sealed: dict[tuple[str, int], _Segment] = {}

    def __del__(self) -> None:
        os.close(self._descriptor)

    def link(self, column: str, first: int, stop: int, folder: Path) -> _Segment | None:
        """Link a segment that holds these rows into `folder`; None if that can't be done."""
        segment = self.sealed.get((column, stop))
        if segment is None or segment.first > first:
            return None
        expected = segment.fingerprint.num_bytes, segment.mtime_ns
        try:
            found = os.stat(segment.name, dir_fd=self._descriptor, follow_symlinks=False)
            if (found.st_size, found.st_mtime_ns) != expected:
                return None  # Somebody has changed it.
            os.link(segment.name, folder / segment.name, src_dir_fd=self._descriptor)
        except OSError:  # It was deleted, or is on another file system.
            return None
        return segment


class _PartSave:
    """One save of one buffer."""

    def __init__(
        self,
        snapshot: Snapshot,
        copy_rows: CopyRows,
        folder: Path,
        before: list[_SavedFolder],
        segment_bytes: int,
    ) -> None:
        self.here = _SavedFolder(folder)
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
        started_s = time.monotonic()
        size = self._segment_rows
        for start in range(self._first // size * size, self._snapshot.stop, size):
            for column in self._snapshot.columns:
                self._save_segment(column, start, min(start + size, self._snapshot.stop))
        snapshot = self._snapshot.without_rows_before(self._first)
        for name, array in snapshot.arrays.items():
            self._files[f"{name}.npy"] = write_array(self._path / f"{name}.npy", array)
        values = {
            "first": self._first,
            "segments": {
                name: [segment for segment in segments if segment[1] > self._first]
                for name, segments in self._segments.items()
            },
            "values": snapshot.values,
        }
        self._files[VALUES] = write_versioned(self._path / VALUES, ARCHIVE_FORMAT, values)
        seal(self._path, self._files)
        return SaveReport(
            sum(file.num_bytes for file in self._files.values()) - self._num_bytes_shared,
            self._num_bytes_shared,
            self._first - self._snapshot.first,
            time.monotonic() - started_s,
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
            self.here.sealed[column, segment.stop] = segment

    def _is_sealed(self, first: int, stop: int) -> bool:
        """Whether no stream will write there any more, nor this grid hold more rows of it."""
        low, high = np.searchsorted(self._open_rows, (first, stop))
        return bool(stop % self._segment_rows == 0 and low == high)

    def _link(self, column: str, first: int, stop: int) -> _Segment | None:
        for folder in self._before:
            segment = folder.link(column, first, stop, self._path)
            if segment is not None:
                self._num_bytes_shared += segment.fingerprint.num_bytes
                return segment
        return None

    def _write(self, column: str, first: int, stop: int) -> _Segment | None:
        kept, pieces = self._copy(column, first, stop)
        if kept > first:
            self._first = kept
        if kept >= stop:
            return None
        name = f"{column}.{kept:012d}-{stop:012d}.npy"
        rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        fingerprint = write_array(self._path / name, rows)
        mtime_ns = (self._path / name).stat().st_mtime_ns
        return _Segment(kept, stop, name, fingerprint, mtime_ns)

    def _copy(self, column: str, first: int, stop: int) -> tuple[int, list[Array]]:
        copied = self._snapshot.copied.get(column)
        if copied is not None:
            return first, [rows_by_sequence(copied, first, stop, self._snapshot.capacity)]
        return copy_in_pieces(self._copy_rows, column, self._row_bytes[column], first, stop)
