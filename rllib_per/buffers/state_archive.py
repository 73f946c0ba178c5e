# SPDX-License-Identifier: MIT
"""Any buffer with `state()` in a folder: every array one .npy file, all else in values.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rllib_per.checkpoints.arrays import write_array
from rllib_per.checkpoints.durable import Fingerprint, durable_file
from rllib_per.checkpoints.errors import CheckpointError
from rllib_per.checkpoints.manifest import seal

_VALUES = "values.json"
FORMAT = 1


class _Done:
    """A save that was over when it began."""

    is_done = True

    def finish(self) -> None:
        """Nothing is left to do."""


class StateArchive:
    """Puts a buffer into folders, and back; holds a second copy of it meanwhile."""

    def __init__(self, replay: Any) -> None:
        self._replay = replay

    def begin_save(self, folder: Path) -> _Done:
        """Save this moment into the empty `folder`."""
        self.write(folder, self._replay.state())
        return _Done()

    def write(self, folder: Path, state: dict[str, Any]) -> None:
        """Put `state` into the empty `folder`."""
        files: dict[str, Fingerprint] = {}
        values = {}
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                files[f"{name}.npy"] = write_array(folder / f"{name}.npy", value)
            else:
                values[name] = value
        with durable_file(folder / _VALUES) as file:
            file.write(json.dumps({"format": FORMAT, "values": values}).encode())
            files[_VALUES] = file.fingerprint
        seal(folder, files)

    def load(self, folder: Path) -> None:
        """Restore what was saved; verify `folder` first.

        Raises:
            CheckpointError: A file can't be read; nothing has changed.
            ValueError, KeyError: It is of another kind of buffer.
        """
        path = folder / _VALUES
        try:
            read = json.loads(path.read_bytes())
            if read["format"] != FORMAT:
                raise ValueError(f"it has format {read['format']!r}, this version reads {FORMAT}")
            state = dict(read["values"])
            for name in self._replay.state_arrays:
                path = folder / f"{name}.npy"
                state[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        self._replay.load_state(state)
