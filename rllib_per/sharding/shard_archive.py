# SPDX-License-Identifier: MIT
"""How a shard saves and restores itself, in its own process and from its own node's disk.

A node may not see the driver's folder. Whether it does, a *witness* tells: when saving a file with
a name that nobody has used before, when restoring the checksum of the manifest. Where it does not,
the driver copies rows out of the shard (`snapshot` and `copy_rows`), or files into it (`receive`),
a few megabytes at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rllib_per.checkpoints.archive import ArchiveWriter, AskReport, SaveReport
from rllib_per.checkpoints.archive_reader import part_folder, read_part
from rllib_per.checkpoints.files import CheckpointError, Fingerprint
from rllib_per.checkpoints.folders import MANIFEST, verify
from rllib_per.checkpoints.resharding import read_state
from rllib_per.replay import PrioritizedReplayBuffer


class ShardArchive:
    """The saves and restores of one shard, in its process."""

    def __init__(self) -> None:
        self._writer = ArchiveWriter()
        self._ask_report: AskReport | None = None
        self._save_witness = ""
        self._prepared: dict[str, Any] | None = None
        self._received: tempfile.TemporaryDirectory[str] | None = None

    # -- saving ------------------------------------------------------------------------------

    def start_save(self, buffer: PrioritizedReplayBuffer, folder: str, witness: str) -> bool:
        """Save this moment into the empty `folder`, in a thread; False if it is not seen here.

        Asked twice, by the same witness, it is done once.
        """
        if not _sees(witness):
            return False
        if witness != self._save_witness:
            self._ask_report = self._writer.start(buffer, Path(folder))
            self._save_witness = witness
        return True

    def save_report(self) -> SaveReport | None:
        """What the save cost; None while it is under way.

        Raises:
            OSError: The disk is full, or the like.
            CheckpointError: This process has started none: it is a new one.
        """
        if self._ask_report is None:
            raise CheckpointError("the process that was saving this replay shard is gone")
        return self._ask_report()

    # -- restoring ---------------------------------------------------------------------------

    def receive(self, name: str, data: bytes) -> None:
        """Append to a file of a folder that is not seen here."""
        if self._received is None:
            self._received = tempfile.TemporaryDirectory(prefix="rllib-per-")
        path = Path(self._received.name) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)

    def prepare(
        self,
        buffer: PrioritizedReplayBuffer,
        folder: str,
        witness: str,
        part: int,
        capacities: Sequence[int],
    ) -> float | None:
        """Read what this shard is to be restored to, and check that it can be.

        Args:
            folder: Of the saved replay buffer, which is verified already.
            witness: SHA-256 of its manifest; "": what was received is in its place.
            part: This shard's number.
            capacities: Of all shards.
        Returns:
            The α that was saved; None if the folder is not seen here.
        Raises:
            CheckpointError, ValueError, KeyError: It can't be; nothing has changed.
        """
        root = Path(folder)
        if not witness and self._received is not None:
            root = Path(self._received.name)
        elif not _is_sealed_with(witness, root):
            self._forget_received()  # It is sent once more.
            return None
        self._prepared = read_state(root, part, capacities)
        buffer.check_state(self._prepared)
        return float(self._prepared["alpha"])

    def load(self, buffer: PrioritizedReplayBuffer) -> None:
        """Restore what is prepared.

        Raises:
            CheckpointError: A file can't be read any more; the buffer is empty then.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise CheckpointError("the process that was to restore this replay shard is gone")
        try:
            buffer.load_state(prepared)
        finally:
            self._forget_received()

    def _forget_received(self) -> None:
        if self._received is not None:
            self._received.cleanup()
            self._received = None


def _sees(witness: str) -> bool:
    return Path(witness).exists()


def _is_sealed_with(sha256: str, folder: Path) -> bool:
    manifest = folder / MANIFEST
    return manifest.is_file() and Fingerprint.of(manifest).sha256 == sha256


def load_part(buffer: PrioritizedReplayBuffer, folder: Path, part: int) -> None:
    """Restore one lost shard from its part of a saved replay buffer, which is verified first.

    Args:
        folder: Of the saved replay buffer in a checkpoint: <checkpoint>/replay_buffer.
        part: The shard's number, of as many as there were.
    Raises:
        CheckpointError: It is damaged; the message names the file, and nothing has changed.
        ValueError, KeyError: It is of another kind of buffer; nothing has changed.
    """
    verify(part_folder(folder, part))
    buffer.load_state(read_part(part_folder(folder, part)))
