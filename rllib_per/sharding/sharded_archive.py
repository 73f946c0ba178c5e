# SPDX-License-Identifier: MIT
"""Saves and restores all shards from the driver; each does its own part (`shard_archive`)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from rllib_per.arrays import Array
from rllib_per.checkpoints.archive import (
    ArchiveWriter,
    AskReport,
    PendingSave,
    SaveReport,
    seal_parts,
)
from rllib_per.checkpoints.archive_reader import INDEX, part_folder, read_index
from rllib_per.checkpoints.files import Fingerprint
from rllib_per.checkpoints.folders import MANIFEST, read_manifest
from rllib_per.replay.snapshot import Snapshot
from rllib_per.sharding.calls import LOST, Deadline
from rllib_per.sharding.pool import ShardPool
from rllib_per.sharding.priorities import ShardPriorities
from rllib_per.sharding.proxy import ShardProxy
from rllib_per.sharding.shard import ReplayShard

_CHUNK_BYTES = 4 << 20
# A disk that is slower than this is taken for one that hangs.
_BYTES_PER_S = 5e6


class ShardedArchive:
    """Puts all shards into folders, and back, in the driver's process.

    Args:
        pool: All shards.
        priorities: What is on its way to them.
        rng: The driver's generator, which is saved and restored with them.
    """

    def __init__(
        self, pool: ShardPool, priorities: ShardPriorities, rng: np.random.Generator
    ) -> None:
        self._pool, self._priorities, self._rng = pool, priorities, rng
        self._writers = [ArchiveWriter() for _ in pool]

    def start_save(self, folder: Path) -> PendingSave:
        """Save this moment into the empty `folder`, while the shards go on.

        Every shard takes its snapshot when it gets the call, and writes its own part; adding goes
        on between two of them. Waits until the shards have all TD errors, and for lost ones to be
        back.
        """
        self._pool.await_all()
        self._priorities.flush()
        values = {
            "incarnations": [proxy.incarnation for proxy in self._pool],
            "rng": self._rng.bit_generator.state,
        }
        for proxy in self._pool:
            part_folder(folder, proxy.index).mkdir()
        with _witness(folder) as witness:
            parts = [self._start_part(proxy, folder, witness) for proxy in self._pool]
        return PendingSave(parts, partial(seal_parts, folder, len(parts), values))

    def _start_part(self, proxy: ShardProxy, folder: Path, witness: str) -> AskReport:
        own = part_folder(folder, proxy.index)
        arguments = (str(own.resolve()), witness)
        if self._pool.call(proxy, "start to save itself", ReplayShard.start_save, *arguments):
            return _SaveOfShard(self._pool, proxy)
        return self._writers[proxy.index].start(_RowsOfShard(proxy), own)

    def load(self, folder: Path) -> None:
        """Restore what was saved, by as many shards or others; verify `folder` first.

        All shards agree before any of them is changed. Ids of before are stale from then on.

        Raises:
            CheckpointError: A file can't be read, or does not fit.
            ValueError, KeyError: It is of another kind of buffer; nothing has changed.
        """
        _, values = read_index(folder)
        timeout_s = _longest_read_s(folder)
        alphas = self._prepare_all(folder)
        before = [proxy.incarnation for proxy in self._pool]
        incarnation = 1 + max([*values.get("incarnations", []), *before])
        for proxy, alpha in zip(self._pool, alphas, strict=True):
            proxy.expect_incarnation(incarnation)
            proxy.alpha = alpha
            start = (incarnation, alpha, proxy.settings)
            self._pool.call(proxy, "start again", ReplayShard.start, *start)
        loads = [(proxy, proxy.handle.call(ReplayShard.load_prepared)) for proxy in self._pool]
        for proxy, call in loads:
            proxy.fetch(call, "load what was saved", timeout_s)
            proxy.refresh()
        if "rng" in values:
            self._rng.bit_generator.state = values["rng"]

    def _prepare_all(self, folder: Path) -> list[float]:
        """Let every shard read what is small, and check it; the α of each. Raises as `load`."""
        self._pool.await_all()
        reports = self._pool.call_all("report", ReplayShard.metrics)
        capacities = [int(report["capacity"]) for report in reports]
        witness = Fingerprint.of(folder / MANIFEST).sha256
        timeout_s = _longest_read_s(folder)
        return [
            self._prepare(proxy, folder, witness, capacities, timeout_s) for proxy in self._pool
        ]

    def _prepare(
        self,
        proxy: ShardProxy,
        folder: Path,
        witness: str,
        capacities: Sequence[int],
        timeout_s: float,
    ) -> float:
        def alpha_of(known: str) -> float | None:
            path = str(folder.resolve())
            arguments = (path, known, proxy.index, capacities)
            call = proxy.handle.call(ReplayShard.prepare_load, *arguments)
            alpha: float | None = proxy.fetch(call, "read what was saved", timeout_s)
            return alpha

        alpha = alpha_of(witness)
        if alpha is None:
            self._send(proxy, folder, capacities)
            alpha = alpha_of("")
        assert alpha is not None
        return alpha

    def _send(self, proxy: ShardProxy, folder: Path, capacities: Sequence[int]) -> None:
        """The files that the shard needs, to a node that does not see them."""
        num_parts, _ = read_index(folder)
        parts = [proxy.index] if num_parts == len(capacities) else range(num_parts)
        names = [INDEX]
        for part in parts:
            inner = part_folder(folder, part)
            files = [*read_manifest(inner), MANIFEST]
            names += [(inner / name).relative_to(folder).as_posix() for name in files]
        for name in names:
            with (folder / name).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    proxy.fetch(proxy.handle.call(ReplayShard.receive, name, chunk), "take a file")


def _longest_read_s(folder: Path) -> float:
    """How long a shard may take to read what is in `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*")) / _BYTES_PER_S


class _SaveOfShard:
    """Asks a shard that saves itself whether it is done; an `AskReport`.

    One that is lost may come back; if its process is new then, it says that.
    """

    def __init__(self, pool: ShardPool, proxy: ShardProxy) -> None:
        self._pool, self._proxy = pool, proxy
        self._deadline: Deadline | None = None  # While the shard is lost.

    def __call__(self) -> SaveReport | None:
        report: SaveReport | None = None
        if not self._proxy.is_live:
            self._pool.poll()
        else:
            try:
                call = self._proxy.handle.call(ReplayShard.save_report)
                report = self._proxy.fetch(call, "save itself")
            except LOST as error:
                self._proxy.lose(error)
        if self._proxy.is_live:
            self._deadline = None
            return report
        self._deadline = self._deadline or Deadline(self._pool.timeout_s)
        if not self._deadline.left_s:
            lost = [proxy.index for proxy in self._pool if not proxy.is_live]
            raise TimeoutError(
                f"waited {self._deadline.timeout_s:g} s for replay shards {lost}, which were lost "
                "while they were saved; look at their processes"
            )
        return None


class _RowsOfShard:
    """A shard whose node does not see the folder, as a buffer that can be saved from here."""

    def __init__(self, proxy: ShardProxy) -> None:
        self._proxy = proxy

    def snapshot(self) -> Snapshot:
        """The shard at this moment."""
        call = self._proxy.handle.call(ReplayShard.snapshot)
        snapshot: Snapshot = self._proxy.fetch(call, "hand over what is small")
        return snapshot

    def copy_rows(self, name: str, first: int, stop: int) -> tuple[int, Array]:
        """At most a piece."""
        call = self._proxy.handle.call(ReplayShard.copy_rows, name, first, stop)
        rows: tuple[int, Array] = self._proxy.fetch(call, "hand over rows")
        return rows


@contextmanager
def _witness(folder: Path) -> Iterator[str]:
    """A file that only those find who see `folder` itself."""
    path = folder.resolve() / f".witness-{uuid.uuid4().hex}"
    path.touch()
    try:
        yield str(path)
    finally:
        path.unlink()
