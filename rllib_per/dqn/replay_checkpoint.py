# SPDX-License-Identifier: MIT
"""The replay buffer as a component of RLlib's checkpoints: arrays and JSON, no pickle."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from pyarrow.fs import FileSystem
from ray.rllib.utils.checkpoints import Checkpointable

from rllib_per.dqn.replay import Replay

_VALUES = "values.json"


class ReplayCheckpoint(Checkpointable):
    """Saves and restores a buffer; every array is one .npy file, all else is in values.json."""

    def __init__(self, buffer: Replay) -> None:
        self._buffer = buffer

    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        return self._buffer.state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._buffer.load_state(state)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        raise NotImplementedError("a replay buffer is restored into an Algorithm, not on its own")

    def save_to_path(
        self,
        path: Any,
        *,
        state: dict[str, Any] | None = None,
        filesystem: FileSystem | None = None,
        use_msgpack: bool = False,
    ) -> str:
        """Write the buffer below `path`; `use_msgpack` is RLlib's and changes nothing here."""
        filesystem, root = _locate(path, filesystem)
        filesystem.create_dir(root, recursive=True)
        values = {}
        for name, value in (self.get_state() if state is None else state).items():
            if isinstance(value, np.ndarray):
                with filesystem.open_output_stream(f"{root}/{name}.npy") as file:
                    np.lib.format.write_array(file, value, allow_pickle=False)
            else:
                values[name] = value
        with filesystem.open_output_stream(f"{root}/{_VALUES}") as file:
            file.write(json.dumps(values).encode())
        return root

    def restore_from_path(
        self,
        path: Any,
        *,
        component: str | None = None,
        filesystem: FileSystem | None = None,
        **kwargs: Any,
    ) -> None:
        """Load what `save_to_path` wrote."""
        filesystem, root = _locate(path, filesystem)
        with filesystem.open_input_stream(f"{root}/{_VALUES}") as file:
            state = json.loads(file.read())
        for name in self._buffer.state_arrays:
            with filesystem.open_input_file(f"{root}/{name}.npy") as file:
                state[name] = np.lib.format.read_array(file, allow_pickle=False)
        self._buffer.load_state(state)


def _locate(path: Any, filesystem: FileSystem | None) -> tuple[FileSystem, str]:
    path = str(path)
    return (filesystem, path) if filesystem is not None else FileSystem.from_uri(path)
