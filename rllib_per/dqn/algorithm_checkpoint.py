# SPDX-License-Identifier: MIT
"""RLlib's checkpoint of an algorithm, made whole: sealed, and there at once or not at all."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem, LocalFileSystem, copy_files
from ray.rllib.utils.metrics import REPLAY_BUFFER_RESULTS

from rllib_per.buffers.checkpoint import ReplaySave
from rllib_per.checkpoints.beside import filled_beside, put_back
from rllib_per.checkpoints.manifest import MANIFEST, seal, verify

# Tune writes it into a checkpoint that it has been given.
_TUNES = frozenset({".metadata.json"})


class AlgorithmSave:
    """A save of which everything but the buffer's rows is written."""

    def __init__(self, folder: Path, replay: ReplaySave | None) -> None:
        self._folder, self._replay = folder, replay

    @property
    def is_done(self) -> bool:
        """Whether `finish` would not wait; raises what went wrong with the buffer."""
        return self._replay is None or self._replay.is_done

    def finish(self) -> None:
        """Wait until the folder is whole.

        Raises:
            OSError: The disk is full, or the like; the folder is to be removed then.
        """
        if self._replay is not None:
            self._replay.finish()
        seal(self._folder)


def verify_algorithm(folder: Path, *, with_replay: bool) -> None:
    """Compare a checkpoint with its manifest; raises CheckpointError with the file's name."""
    ignore = _TUNES if with_replay else _TUNES | {REPLAY_BUFFER_RESULTS}
    # Tune may put a checkpoint over another one of the same number, whose segments then stay.
    verify(folder, ignore=ignore, strays=frozenset({REPLAY_BUFFER_RESULTS}))


def write_checkpoint(
    path: Any, filesystem: FileSystem | None, write: Callable[[Path], None]
) -> str:
    """Let `write` fill a folder, and bring it to `path`.

    A folder on a local disk is filled beside its place and renamed; a checkpoint that is there
    already is replaced then, and what else is in it stays. Elsewhere the manifest is the last file
    to arrive. Without its manifest, nothing is restored.

    Args:
        path: Where to; None: a new temporary folder.
        filesystem: As RLlib's `save_to_path` takes it.
    """
    if path is None:
        path = Path(tempfile.gettempdir()) / str(uuid.uuid4())
    if filesystem is None:
        filesystem, path = FileSystem.from_uri(str(path))
    if not isinstance(filesystem, LocalFileSystem):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            _upload(Path(folder), filesystem, str(path))
        return str(path)
    with filled_beside(Path(path)) as folder:
        write(folder)
        if _copy_others(Path(path), folder):
            (folder / MANIFEST).unlink()
            seal(folder)
    return str(path)


def _copy_others(source: Path, folder: Path) -> bool:
    """Copy what `source` has and `folder` has not; whether there is any.

    A replay buffer would be one of another time.
    """
    entries = source.iterdir() if source.is_dir() else ()
    names = {REPLAY_BUFFER_RESULTS, *(entry.name for entry in folder.iterdir())}
    others = [entry for entry in entries if entry.name not in names]
    for entry in others:
        copy = shutil.copytree if entry.is_dir() else shutil.copy2
        copy(entry, folder / entry.name)
    return bool(others)


@contextmanager
def local_copy(path: Any, filesystem: FileSystem | None) -> Iterator[Path]:
    """The checkpoint's folder, brought here first if it is elsewhere.

    One that was about to be replaced when its process was killed has its name again.

    Raises:
        FileNotFoundError: There is none.
    """
    if filesystem is None:
        filesystem, path = FileSystem.from_uri(str(path))
    if isinstance(filesystem, LocalFileSystem):
        put_back(Path(path))
        if not Path(path).is_dir():
            raise FileNotFoundError(f"{path} is no checkpoint: there is no such folder")
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_files(str(path), folder, source_filesystem=filesystem)
        yield Path(folder)


def _upload(folder: Path, filesystem: FileSystem, path: str) -> None:
    """The manifest is moved away meanwhile, so that it arrives last."""
    manifest = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()
    filesystem.create_dir(path, recursive=True)
    copy_files(str(folder), path, destination_filesystem=filesystem)
    with filesystem.open_output_stream(f"{path}/{MANIFEST}") as file:
        file.write(manifest)
