# SPDX-License-Identifier: MIT
"""Saves and restores a replay buffer that is in this process."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from rllib_per.replay.archive import SaveReport
from rllib_per.replay.buffer import PrioritizedReplayBuffer
from rllib_per.replay.part_saver import PartSaver
from rllib_per.replay.parts import finish, part_folder, read_state


class BufferSave:
    """A save that is under way."""

    def __init__(self, folder: Path, part: Future[SaveReport]) -> None:
        self._folder, self._part = folder, part

    @property
    def is_done(self) -> bool:
        """Whether `finish` would not wait."""
        return self._part.done()

    def finish(self) -> list[SaveReport]:
        """Wait until the folder is whole; what it cost.

        Raises:
            OSError: The disk is full, or the like.
        """
        report = self._part.result()
        finish(self._folder, 1, {})
        return [report]


class BufferArchive:
    """Puts a buffer into folders, and back; see `archive` and `parts` for what is in them."""

    def __init__(self, buffer: PrioritizedReplayBuffer) -> None:
        self._buffer = buffer
        self._saver = PartSaver()

    def begin_save(self, folder: Path) -> BufferSave:
        """Save this moment into the empty `folder`, while the buffer goes on."""
        part = part_folder(folder, 0)
        part.mkdir()
        return BufferSave(folder, self._saver.begin(self._buffer, part))

    def check(self, folder: Path) -> None:
        """Raise what `load` would, as far as it can be known before columns are read."""
        self._buffer.check_state(read_state(folder, 0, [self._buffer.capacity]))

    def load(self, folder: Path) -> None:
        """Restore what was saved, from one buffer or from shards; verify `folder` first.

        Raises:
            CheckpointError: A file can't be read, or does not fit.
            ValueError, KeyError: It is of another kind of buffer.
        """
        self._buffer.load_state(read_state(folder, 0, [self._buffer.capacity]))
