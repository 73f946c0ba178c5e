# SPDX-License-Identifier: MIT
"""`policy.safetensors`: a network's weights, and the statistics by which environments normalize.

The names of the latter begin with `environment.`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from rllib_per.arrays import Array
from rllib_per.envs.statistics import Statistics
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.run_folder import write_bytes
from rllib_per.replay import TrainingDivergedError

# Of a file of tensors: float64 at most, and a hundred bytes or so for each tensor.
_MAX_BYTES_PER_VALUE = 8
_MAX_HEADER_BYTES = 1_000_000

_OF_ENVIRONMENT = "environment."


def save_policy(
    state: dict[str, Any],
    path: Path,
    experiment: ExperimentConfig,
    statistics: Statistics | None = None,
) -> None:
    """Write a module's weights, so that a reader sees the old file or the new one.

    Args:
        state: The weights.
        path: Of the file.
        experiment: Whose they are.
        statistics: By which the environments normalize.
    Raises:
        OSError: The disk is full, or the like; the old file is still there.
        TrainingDivergedError: Weights are not finite; the old file is still there.
    """
    for name, values in state.items():
        if not np.isfinite(values).all():
            raise TrainingDivergedError(
                f"weights must be finite to be saved: {name} holds NaN or infinity. Training has "
                f"diverged; {path} stays as it was. Lower lr, set grad_clip, or clip rewards"
            )
    named = {f"{_OF_ENVIRONMENT}{name}": value for name, value in (statistics or {}).items()}
    tensors = {name: np.asarray(value, order="C") for name, value in (state | named).items()}
    metadata = {"format": "rllib_per.policy", "env": experiment.environment.env}
    write_bytes(path, safetensors.numpy.save(tensors, metadata=metadata))


def read_policy(path: Path, num_values: int) -> tuple[dict[str, Array], Statistics]:
    """The weights and the statistics.

    Args:
        path: Of the file.
        num_values: Numbers in all of them, as the experiment's network and environment have them; a
            file that is too large for them is not read.

    Raises:
        ValueError: It is, or is damaged.
    """
    most, size = num_values * _MAX_BYTES_PER_VALUE + _MAX_HEADER_BYTES, path.stat().st_size
    if size > most:
        raise ValueError(
            f"{path} holds other tensors than the experiment's network, which needs "
            f"{most:,} bytes at most: got {size:,}"
        )
    try:
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    weights = {k: v for k, v in tensors.items() if not k.startswith(_OF_ENVIRONMENT)}
    names = tensors.keys() - weights.keys()
    return weights, {name.removeprefix(_OF_ENVIRONMENT): tensors[name] for name in names}
