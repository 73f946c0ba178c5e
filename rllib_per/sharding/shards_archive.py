# SPDX-License-Identifier: MIT
"""Saves and restores all shards, each by itself; the driver passes on no more than it must."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rllib_per.checkpoints.durable import Fingerprint
from rllib_per.checkpoints.manifest import MANIFEST, read_manifest
from rllib_per.replay.archive import SaveReport
from rllib_per.replay.fragment import Array
from rllib_per.replay.part_saver import PartSaver
from rllib_per.replay.parts import INDEX, finish, part_folder, read_index
from rllib_per.replay.snapshot import Snapshot
from rllib_per.sharding.calls import LOST, Deadline
from rllib_per.sharding.pool import ShardPool
from rllib_per.sharding.proxy import ShardProxy
from rllib_per.sharding.shard import ReplayShard

_PAUSE_S = 0.02
_CHUNK_BYTES = 4 << 20
# A disk that is slower than this is taken for one that hangs.
_BYTES_PER_S = 5e6


class _RowsOfShard:
    """A shard whose node does not see the folder, as a buffer that can be saved from here."""

    def __init__(self, link: ShardProxy) -> None:
        self._link = link

    def snapshot(self) -> Snapshot:
        """The shard at this moment."""
        call = self._link.handle.call(ReplayShard.snapshot)
        snapshot: Snapshot = self._link.fetch(call, "hand over what is small")
        return snapshot

    def copy_rows(self, name: str, first: int, stop: int) -> tuple[int, Array]:
        """At most a piece."""
        call = self._link.handle.call(ReplayShard.copy_rows, name, first, stop)
        rows: tuple[int, Array] = self._link.fetch(call, "hand over rows")
        return rows


class ShardsSave:
    """A save that is under way."""

    def __init__(
        self,
        links: ShardPool,
        folder: Path,
        values: dict[str, Any],
        copied: dict[int, Future[SaveReport]],
    ) -> None:
        self._links, self._folder, self._values = links, folder, values
        self._copied = copied
        self._reports: dict[int, SaveReport] = {}
        self._deadline: Deadline | None = None  # Of the shards that do not answer just now.

    @property
    def is_done(self) -> bool:
        """Whether `finish` would not wait.

        Raises:
            CheckpointError: A shard has died, and its part with it.
            TimeoutError: A shard does not answer.
            OSError: A disk is full, or the like.
        """
        for link in self._links:
            if link.index in self._reports:
                continue
            copied = self._copied.get(link.index)
            if copied is None:
                report = self._ask(link)
            else:
                report = copied.result() if copied.done() else None
            if report is not None:
                self._reports[link.index] = report
        self._check_deadline()
        return len(self._reports) == len(self._links)

    def _ask(self, link: ShardProxy) -> SaveReport | None:
        """What the shard says; None where it has nothing to say yet, or is lost and may come back.

        If its process is new then, it says that.
        """
        if not link.is_live:
            self._links.poll()
            return None
        try:
            report: SaveReport | None = link.fetch(
                link.handle.call(ReplayShard.save_report), "save itself"
            )
        except LOST as error:
            link.lose(error)
            return None
        return report

    def _check_deadline(self) -> None:
        waiting = [link for link in self._links if link.index not in self._reports]
        lost = [link.index for link in waiting if not link.is_live]
        if not lost:
            self._deadline = None
            return
        self._deadline = self._deadline or Deadline(self._links.timeout_s)
        if not self._deadline.left_s:
            raise TimeoutError(
                f"waited {self._deadline.timeout_s:g} s for replay shards {lost}, which were lost "
                "while they were saved; look at their processes"
            )

    def finish(self) -> list[SaveReport]:
        """Wait until the folder is whole; what it cost, shard by shard. Raises as `is_done`."""
        while not self.is_done:
            time.sleep(_PAUSE_S)
        finish(self._folder, len(self._links), self._values)
        return [self._reports[link.index] for link in self._links]


class ShardsArchive:
    """Puts all shards into folders, and back; see `replay.parts` for what is in them."""

    def __init__(self, links: ShardPool) -> None:
        self._links = links
        self._savers = [PartSaver() for _ in links]

    def begin_save(self, folder: Path, values: dict[str, Any]) -> ShardsSave:
        """Save this moment into the empty `folder`, while the shards go on.

        Every shard takes its snapshot when it gets the call; adding goes on between two of them.

        Args:
            values: What JSON can hold, to come back from `load`.
        """
        copied: dict[int, Future[SaveReport]] = {}
        for link in self._links:
            part_folder(folder, link.index).mkdir()
        with _witness(folder) as witness:
            for link in self._links:
                own = part_folder(folder, link.index)
                arguments = (str(own.resolve()), witness)
                if not self._links.call(
                    link, "begin to save itself", ReplayShard.begin_save, *arguments
                ):
                    saver = self._savers[link.index]
                    copied[link.index] = saver.begin(_RowsOfShard(link), own)
        return ShardsSave(self._links, folder, values, copied)

    def load(self, folder: Path) -> dict[str, Any]:
        """Restore what was saved, by as many shards or others; verify `folder` first.

        All shards agree before any of them is changed. Ids of before are stale from then on.

        Returns:
            The values that `begin_save` was given.
        Raises:
            CheckpointError: A file can't be read, or does not fit.
            ValueError, KeyError: It is of another kind of buffer.
        """
        _, values = read_index(folder)
        timeout_s = _patience_s(folder)
        alphas = self.prepare(folder)
        before = [link.incarnation for link in self._links]
        incarnation = 1 + max([*values.get("incarnations", []), *before])
        for link, alpha in zip(self._links, alphas, strict=True):
            link.expect_incarnation(incarnation)
            link.alpha = alpha
            start = (incarnation, alpha, link.settings)
            self._links.call(link, "start again", ReplayShard.start, *start)
        loads = [(link, link.handle.call(ReplayShard.load_prepared)) for link in self._links]
        for link, call in loads:
            link.fetch(call, "load what was saved", timeout_s)
            link.refresh()
        return values

    def prepare(self, folder: Path) -> list[float]:
        """Let every shard read what is small, and check it; the α of each. Raises as `load`."""
        self._links.await_all()
        reports = self._links.call_all("report", ReplayShard.metrics)
        capacities = [int(report["capacity"]) for report in reports]
        witness = Fingerprint.of(folder / MANIFEST).sha256
        timeout_s = _patience_s(folder)
        return [self._prepare(link, folder, witness, capacities, timeout_s) for link in self._links]

    def _prepare(
        self,
        link: ShardProxy,
        folder: Path,
        witness: str,
        capacities: Sequence[int],
        timeout_s: float,
    ) -> float:
        path, part = str(folder.resolve()), link.index
        call = link.handle.call(ReplayShard.prepare_load, path, witness, part, capacities)
        alpha = link.fetch(call, "read what was saved", timeout_s)
        if alpha is None:
            self._send(link, folder, capacities)
            call = link.handle.call(ReplayShard.prepare_load, path, "", part, capacities)
            alpha = link.fetch(call, "read what was saved", timeout_s)
        return float(alpha)

    def _send(self, link: ShardProxy, folder: Path, capacities: Sequence[int]) -> None:
        """The files that the shard needs, to a node that does not see them."""
        num_parts, _ = read_index(folder)
        parts = [link.index] if num_parts == len(capacities) else range(num_parts)
        names = [INDEX]
        for part in parts:
            inner = part_folder(folder, part)
            files = [*read_manifest(inner), MANIFEST]
            names += [(inner / name).relative_to(folder).as_posix() for name in files]
        for name in names:
            with (folder / name).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    link.fetch(link.handle.call(ReplayShard.receive, name, chunk), "take a file")


def _patience_s(folder: Path) -> float:
    """How long a shard may take to read what is in `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*")) / _BYTES_PER_S


@contextmanager
def _witness(folder: Path) -> Iterator[str]:
    """A file that only those find who see `folder` itself."""
    path = folder.resolve() / f".witness-{uuid.uuid4().hex}"
    path.touch()
    try:
        yield str(path)
    finally:
        path.unlink()
