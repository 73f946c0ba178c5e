# SPDX-License-Identifier: MIT
"""Saves a buffer again and again, in a thread, while it is in use."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from rllib_per.replay.archive import ArchiveWriter, SaveReport
from rllib_per.replay.fragment import Array
from rllib_per.replay.snapshot import Snapshot


class SaveableBuffer(Protocol):
    """What is needed of a buffer."""

    def snapshot(self) -> Snapshot:
        """This moment."""

    def copy_rows(self, name: str, first: int, stop: int) -> tuple[int, Array]:
        """See `snapshot.CopyRows`."""


class PartSaver:
    """One buffer's saves, one after the other; what they share is known here."""

    def __init__(self) -> None:
        self._writer = ArchiveWriter()
        self._thread = ThreadPoolExecutor(1, "replay checkpoint")

    def begin(self, buffer: SaveableBuffer, folder: Path) -> Future[SaveReport]:
        """Save `buffer` as it is now into the empty `folder`; the rest is done in the thread."""
        moment = buffer.snapshot()
        return self._thread.submit(self._writer.write, moment, buffer.copy_rows, folder)
