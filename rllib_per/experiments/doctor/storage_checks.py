# SPDX-License-Identifier: MIT
"""Where runs are written: is a checkpoint that exists a whole one there, and is there room?"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from rllib_per.experiments.doctor.finding import Finding
from rllib_per.experiments.doctor.node_checks import GIB

_ROOM_BYTES = 2 * GIB
_SLOW_S = 1.0


def check_storage(path: Path) -> list[Finding]:
    """Try on `path`, or on what there is of it, what saving a checkpoint relies on."""
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return [_check_rename(folder), _check_room(folder)]


def _check_rename(folder: Path) -> Finding:
    began_s = time.monotonic()
    try:
        _rename(folder)
    except OSError as error:
        return Finding.error(
            "storage",
            f"{folder}: {error}",
            "write runs to a file system that can fsync and rename: --runs PATH, --storage PATH",
        )
    took_s = time.monotonic() - began_s
    found = f"{folder}: fsync and rename work, {1000 * took_s:.0f} ms"
    if took_s > _SLOW_S:
        return Finding.warning("storage", found, "saving waits for this: use a faster disk")
    return Finding.ok("storage", found)


def _rename(folder: Path) -> None:
    """Write beside, sync, rename into place: a folder as checkpoints are, and over a file.

    Raises:
        OSError: Something of this does not work.
    """
    with tempfile.TemporaryDirectory(prefix=".rllib-per-doctor-", dir=folder) as scratch:
        beside, final = Path(scratch, "beside"), Path(scratch, "final")
        beside.mkdir()
        content = os.urandom(4096)
        with Path(beside, "file").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(final)
        _sync(Path(scratch))
        Path(final, "other").write_bytes(b"")
        Path(final, "file").replace(final / "other")
        if beside.exists() or Path(final, "other").read_bytes() != content:
            raise OSError("what was renamed is not what came of it")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free < _ROOM_BYTES:
        remedy = "make room: with checkpoint.buffer a checkpoint is as large as the replay buffer"
        return Finding.warning("disk space", found, remedy)
    return Finding.ok("disk space", found)
