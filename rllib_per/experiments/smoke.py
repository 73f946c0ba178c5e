# SPDX-License-Identifier: MIT
"""What `--smoke` makes smaller, so that an experiment for large machines runs on a laptop too."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from rllib_per.experiments.yaml_source import KeyPath, Source, value_at

_FLAG = "--smoke"

# Everything happens once, and nothing takes long.
_BUDGET: dict[tuple[str, ...], Any] = {
    ("stop",): {"env_steps": 1500, "time_s": 15},
    ("training", "num_steps_sampled_before_learning_starts"): 200,
    ("reporting", "min_sample_timesteps_per_iteration"): 500,
    ("evaluation", "interval_env_steps"): 1000,
    ("evaluation", "num_episodes"): 2,
    ("evaluation", "final_num_episodes"): 2,
    ("evaluation", "num_envs"): 2,
    ("evaluation", "max_env_steps_per_episode"): 100,  # A whole game takes minutes.
}

_LIMITS = ("stop.env_steps", "stop.updates", "stop.time_s")

# No more of these than so many; less stays as it is.
_AT_MOST: dict[KeyPath, float] = {
    ("env_runners", "num_env_runners"): 2,
    ("env_runners", "num_envs_per_env_runner"): 16,
    ("training", "train_batch_size_per_learner"): 64,
    ("replay", "capacity"): 50_000,
    ("learners", "num_learners"): 1,
}
_SHARDS_AT_MOST: dict[KeyPath, float] = {
    ("replay", "num_shards"): 2,
    ("replay", "shard_num_cpus"): 0.5,
    ("replay", "shard_memory_bytes"): 0,
}
_REPLAY_TYPE = ("replay", "type")
_GPUS = ("learners", "num_gpus_per_learner")


def shrink(source: Source, overrides: Sequence[str] = ()) -> None:
    """Cut down what takes long, many cores, much memory, or a GPU that is not there.

    `overrides`, section.key=value, come after it and win: one that sets a limit of `stop` finds no
    other there.
    """
    limits = dict(_AT_MOST)
    if value_at(source.data, _REPLAY_TYPE) == "sharded":  # Other types take no settings of shards.
        limits |= _SHARDS_AT_MOST
    for path, limit in limits.items():
        _cap(source, path, limit)
    if _given(source, _GPUS):
        import torch

        _cap(source, _GPUS, torch.cuda.device_count())
    for keys, value in _BUDGET.items():
        source.put(keys, copy(value), _FLAG)
    if any(assignment.partition("=")[0].strip() in _LIMITS for assignment in overrides):
        source.put(("stop",), {}, _FLAG)


def _cap(source: Source, path: KeyPath, limit: float) -> None:
    if _given(source, path) > limit:
        source.put(tuple(map(str, path)), limit, _FLAG)


def _given(source: Source, path: KeyPath) -> float:
    """The number at `path`; 0 if there is none, or something that validation will refuse."""
    value = value_at(source.data, path)
    return value if isinstance(value, int | float) else 0
