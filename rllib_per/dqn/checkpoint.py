# SPDX-License-Identifier: MIT
"""RLlib's checkpoint of an algorithm, made whole: sealed, and there at once or not at all.

The replay buffer is saved beside RLlib's parts and not by RLlib, so that it can be written while
training goes on.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.fs import FileSystem, LocalFileSystem, copy_files
from ray.rllib.algorithms.dqn.dqn import DQN
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.utils.metrics import REPLAY_BUFFER_RESULTS

from rllib_per.checkpoints.archive import BufferArchive, PendingSave
from rllib_per.checkpoints.archive_reader import ARCHIVE_FORMAT, INDEX, VALUES
from rllib_per.checkpoints.files import read_versioned, unreadable, write_array, write_versioned
from rllib_per.checkpoints.folders import MANIFEST, AtomicFolder, put_back, seal, verify
from rllib_per.dqn.asynchronous import AsynchronousLoop
from rllib_per.dqn.config import ApexDQNConfig
from rllib_per.dqn.reconfiguration import keep_alpha
from rllib_per.dqn.remote_rollouts import RemoteRollouts
from rllib_per.dqn.rollouts import Rollouts
from rllib_per.dqn.runner_states import RANDOM_STATES
from rllib_per.dqn.runner_weights import let_take_any_weights, push_weights
from rllib_per.dqn.synchronous import SynchronousLoop
from rllib_per.dqn.training_clock import Progress, ReplayRatio
from rllib_per.learning.learners import Learners
from rllib_per.learning.module import require_same_network, shapes_of
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.settings.algorithm import Settings
from rllib_per.settings.replay import Sharded
from rllib_per.settings.restored import check_kept, kept_settings
from rllib_per.sharding import ShardedReplay

_STATE = "apex_dqn"
_KEPT = "outputs"
_NETWORK = "network"
_REPLAY = REPLAY_BUFFER_RESULTS

# Tune writes it into a checkpoint that it has been given.
_TUNES = frozenset({".metadata.json"})


class ReplayArchive:
    """Puts a replay buffer of any kind into folders, and back.

    Ours are saved in parts, of which successive saves share what does not change. Others are saved
    whole, through `state()`: every array is one .npy file, all else is in values.json.
    """

    def __init__(self, replay: Any) -> None:
        self._replay = replay
        self._parts: Any = None
        if isinstance(replay, ShardedReplay):
            self._parts = replay.archive
        elif isinstance(replay, PrioritizedReplayBuffer):
            self._parts = BufferArchive(replay)

    def start_save(self, folder: Path, state: dict[str, Any] | None = None) -> PendingSave:
        """Save this moment, or `state`, into the new `folder`, while the buffer goes on."""
        folder.mkdir(parents=True)
        if self._parts is not None and state is None:
            save: PendingSave = self._parts.start_save(folder)
            return save
        _write_state(folder, self._replay.state() if state is None else state)
        return PendingSave([])

    def load(self, folder: Path) -> None:
        """Restore what was saved; verify `folder` first.

        Raises:
            CheckpointError: A file can't be read, or does not fit.
            ValueError, KeyError: It is of another kind of buffer.
        """
        if (folder / INDEX).exists() and self._parts is not None:
            self._parts.load(folder)
        else:
            self._replay.load_state(_read_state(folder, self._replay.state_arrays))


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in state.items() if name not in arrays}
    files = {f"{name}.npy": write_array(folder / f"{name}.npy", a) for name, a in arrays.items()}
    files[VALUES] = write_versioned(folder / VALUES, ARCHIVE_FORMAT, {"values": values})
    seal(folder, files)


def _read_state(folder: Path, arrays: tuple[str, ...]) -> dict[str, Any]:
    path = folder / VALUES
    read = read_versioned(path, ARCHIVE_FORMAT)
    with unreadable(path):
        state = dict(read["values"])
    for name in arrays:
        path = folder / f"{name}.npy"
        with unreadable(path):
            state[name] = np.load(path, allow_pickle=False)
    return state


class SaveableDQN(DQN):
    """What of an ApexDQN saves and restores it; its parts are made in `ApexDQN.setup`."""

    config: ApexDQNConfig
    settings: Settings
    learner_group: LearnerGroup
    learners: Learners
    loop: AsynchronousLoop | SynchronousLoop
    progress: Progress
    replay: Any
    replay_ratio: ReplayRatio
    rollouts: Rollouts | RemoteRollouts
    _replay_archive: ReplayArchive

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> Any:
        """RLlib's state, and ours; with the buffer it is as large as that.

        Without the buffer and `RANDOM_STATES`, no other process than learners is asked.
        """
        with_replay = self._check_component(_REPLAY, components, not_components)
        if with_replay:
            self.loop.settle()
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(_STATE, components, not_components):
            state[_STATE] = {
                "progress": asdict(self.progress),
                "replay_ratio": self.replay_ratio.state(),
                _KEPT: kept_settings(self.settings),
                _NETWORK: shapes_of(weights_in(state)),
            }
            if self._check_component(RANDOM_STATES, None, not_components):
                state[_STATE][RANDOM_STATES] = self.rollouts.random_states()
        if self.settings.saves_replay and with_replay:
            state[_REPLAY] = self.replay.state()
        return state

    def set_state(self, state: Any) -> None:
        self._check_fits(state)
        super().set_state(state)
        if COMPONENT_LEARNER_GROUP in state:
            push_weights(self.learners, self.env_runner_group, self.eval_env_runner_group)
        if _REPLAY in state:
            self.replay.load_state(state[_REPLAY])
            keep_alpha(self.replay, self.settings.replay)
        if not {COMPONENT_LEARNER_GROUP, _REPLAY}.isdisjoint(state):
            self.loop.restart()
        if _STATE in state:
            self.progress.load(state[_STATE]["progress"])
            self.replay_ratio.load_state(
                state[_STATE]["replay_ratio"], with_buffer=len(self.replay) > 0
            )
            runners = state[_STATE].get(RANDOM_STATES, {})
            self.rollouts.set_random_states(runners, self.progress.env_steps)
        if not {_REPLAY, _STATE}.isdisjoint(state):
            self.rollouts.begin_anew()

    def _check_fits(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if a state is of another network, or of an optimizer of another kind."""
        saved = state.get(_STATE, {})
        check_kept(saved.get(_KEPT), self.settings)
        network = saved.get(_NETWORK)  # Old checkpoints do not say.
        own = self.learners.read_shapes() if network else {}
        if network and own:
            require_same_network(network, own)

    def start_save(
        self,
        folder: Path,
        *,
        state: Any = None,
        without: Collection[str] = (),
        use_msgpack: bool = False,
    ) -> PendingSave:
        """Save this moment into the empty `folder`; training may go on while replay is written.

        Args:
            state: What to save in place of this moment.
            without: Parts of the state to leave out, since their processes are gone.
        Raises:
            TrainingDivergedError: Weights are not finite; nothing is written.
        """
        with_replay = self.settings.saves_replay and _REPLAY not in without
        replay_state = None
        if state is None:
            if _REPLAY not in without:
                self.loop.settle()
            state = self.get_state(not_components=[_REPLAY, *without])
        else:
            state = dict(state)
            with_replay = with_replay and _REPLAY in state
            replay_state = state.pop(_REPLAY, None)
        super().save_to_path(str(folder.absolute()), state=state, use_msgpack=use_msgpack)
        if with_replay:
            save = self._replay_archive.start_save(folder / _REPLAY, replay_state)
        else:
            save = PendingSave([])
        return save.then(partial(seal, folder))

    def save_to_path(
        self,
        path: Any = None,
        *,
        state: Any = None,
        filesystem: Any = None,
        use_msgpack: bool = False,
    ) -> str:
        """RLlib's checkpoint with a manifest, in place at once or not at all; see docs/checkpoints.

        Raises:
            OSError: The disk is full, or the like; what was at `path` is still there.
        """

        def write(folder: Path) -> None:
            self.start_save(folder, state=state, use_msgpack=use_msgpack).finish()

        written = write_checkpoint(path, filesystem, write)
        if Path(written).is_dir():  # Elsewhere shards would not find it.
            self.recover_shards_from(Path(written))
        return written

    def recover_shards_from(self, checkpoint: Path) -> None:
        """Let a shard that is lost take its part of `checkpoint`, where config says so.

        Saving and restoring call this; call it again after moving a checkpoint.
        """
        settings = self.settings.replay
        takes_part = isinstance(settings, Sharded) and settings.shard_recovery == "checkpoint"
        if isinstance(self.replay, ShardedReplay) and takes_part:
            self.replay.recover_from(checkpoint / _REPLAY)

    def restore_from_path(
        self,
        path: Any,
        *,
        component: str | None = None,
        filesystem: Any = None,
        is_verified: bool = False,
        **kwargs: Any,
    ) -> None:
        """RLlib's, of a checkpoint that is whole; settings stay as this algorithm has them.

        RLlib's own files are unpickled, which can run any code: restore only what you trust.

        Args:
            component: What alone is restored: `replay_buffer`, also where checkpoints leave it
                out, or one of RLlib's; `path` is its folder then.
            is_verified: The checkpoint was just compared with its manifest.
        Raises:
            CheckpointError: It is damaged or not finished; nothing has changed.
            ValueError: There is no such component; or it is of another network, of outputs that
                mean something else, or of an optimizer that remembers something else; as little
                has.
        """
        if component is not None:
            self._require_component(component)
        with_replay = self.settings.saves_replay
        with local_copy(path, filesystem) as folder:
            replay = folder / _REPLAY
            if component == _REPLAY:
                verify(folder)
                self._replay_archive.load(folder)
                self.rollouts.begin_anew()
            elif component is not None:
                let_take_any_weights(self.env_runner_group, self.eval_env_runner_group)
                super().restore_from_path(str(folder.absolute()), component=component, **kwargs)
            else:
                if not is_verified:
                    verify_algorithm(folder, with_replay=with_replay)
                saved = folder / f"{self.STATE_FILE_NAME}.pkl"
                if saved.exists():  # As msgpack, `set_state` looks at it.
                    self._check_fits(pickle.loads(saved.read_bytes()))
                if with_replay and replay.is_dir():
                    self._replay_archive.load(replay)
                super().restore_from_path(str(folder.absolute()), **kwargs)
                push_weights(self.learners, self.env_runner_group, self.eval_env_runner_group)
        if component is None and folder.is_dir():  # A copy from elsewhere is gone by now.
            self.recover_shards_from(folder)
        keep_alpha(self.replay, self.settings.replay)
        self.loop.restart()

    def _require_component(self, component: str) -> None:
        """Raise ValueError if there is none whose name it begins with: RLlib passes over such."""
        rllibs = [name for name, _ in self.get_checkpointable_components()]
        if component != _REPLAY and component.partition("/")[0] not in rllibs:
            known = ", ".join([_REPLAY, *rllibs])
            raise ValueError(
                f"component must be one of {known}, or a part of one of RLlib's "
                f"({COMPONENT_LEARNER_GROUP}/{COMPONENT_LEARNER}, for example): got {component!r}"
            )


def weights_in(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of the learners' module in a state of the algorithm; none if it has none."""
    learner: Mapping[str, Any] = state.get(COMPONENT_LEARNER_GROUP, {}).get(COMPONENT_LEARNER, {})
    return next(iter(learner.get(COMPONENT_RL_MODULE, {}).values()), {})  # There is one module.


def verify_algorithm(folder: Path, *, with_replay: bool) -> None:
    """Compare a checkpoint with its manifest; raises CheckpointError with the file's name."""
    ignore = _TUNES if with_replay else _TUNES | {_REPLAY}
    # Tune may put a checkpoint over another one of the same number, whose segments then stay.
    verify(folder, ignore=ignore, strays=frozenset({_REPLAY}))


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
    with AtomicFolder(Path(path)) as folder:
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
    names = {_REPLAY, *(entry.name for entry in folder.iterdir())}
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
