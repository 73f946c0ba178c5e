# SPDX-License-Identifier: MIT
"""The replay buffer as a component of RLlib's checkpoints: arrays and JSON, no pickle."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pyarrow.fs import FileSystem, LocalFileSystem
from ray.rllib.utils.checkpoints import Checkpointable

from rllib_per.buffers.state_archive import StateArchive
from rllib_per.checkpoints.manifest import verify
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.buffer_archive import BufferArchive
from rllib_per.replay.parts import INDEX
from rllib_per.sharding import ReplayShards


class ReplaySave(Protocol):
    """A save that is under way."""

    @property
    def is_done(self) -> bool:
        """Whether `finish` would not wait."""

    def finish(self) -> Any:
        """Wait until the folder is whole."""


class ReplayCheckpoint(Checkpointable):
    """Saves and restores a buffer. Successive saves of ours share what does not change.

    Buffers of other classes are saved whole, through `state()`.
    """

    def __init__(self, replay: Any) -> None:
        self._replay = replay
        self._archive: Any
        if isinstance(replay, ReplayShards):
            self._archive = replay
        elif isinstance(replay, PrioritizedReplayBuffer):
            self._archive = BufferArchive(replay)
        else:
            self._archive = StateArchive(replay)
        self._save: ReplaySave | None = None
        self.is_deferring = False
        self.is_verified = False

    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        return self._replay.state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._replay.load_state(state)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        raise NotImplementedError("a replay buffer is restored into an Algorithm, not on its own")

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Within the block `save_to_path` only begins a save; `take_save` has it."""
        self.is_deferring, self._save = True, None
        try:
            yield
        finally:
            self.is_deferring = False

    def take_save(self) -> ReplaySave | None:
        """What `save_to_path` has begun."""
        save, self._save = self._save, None
        return save

    def save_to_path(
        self,
        path: Any,
        *,
        state: dict[str, Any] | None = None,
        filesystem: FileSystem | None = None,
        use_msgpack: bool = False,
    ) -> str:
        """Write the buffer, or `state`, below `path`, which is local; nothing else is kept there.

        `use_msgpack` is RLlib's and changes nothing here.
        """
        folder = _local(path, filesystem)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if state is not None:
            StateArchive(self._replay).write(folder, state)
            return str(folder)
        save = self._archive.begin_save(folder)
        if self.is_deferring:
            self._save = save
        else:
            save.finish()
        return str(folder)

    def check(self, folder: Path) -> None:
        """Raise what a restore would, as far as it can be known at once; `folder` is verified."""
        if (folder / INDEX).exists() and not isinstance(self._archive, StateArchive):
            self._archive.check(folder)

    def restore_from_path(
        self,
        path: Any,
        *,
        component: str | None = None,
        filesystem: FileSystem | None = None,
        **kwargs: Any,
    ) -> None:
        """Load what `save_to_path` wrote.

        Raises:
            CheckpointError: It is damaged; the message names the file, and nothing has changed.
            ValueError, KeyError: It is of another kind of buffer.
        """
        folder = _local(path, filesystem)
        if not self.is_verified:
            verify(folder)
        if (folder / INDEX).exists():
            self._archive.load(folder)
        else:
            StateArchive(self._replay).load(folder)


def _local(path: Any, filesystem: FileSystem | None) -> Path:
    if filesystem is None:
        filesystem, path = FileSystem.from_uri(str(path))
    if not isinstance(filesystem, LocalFileSystem):
        raise ValueError(
            f"a replay buffer is written to a local folder: got {path} in {filesystem}; save the "
            "algorithm, which takes it from there"
        )
    return Path(path)
