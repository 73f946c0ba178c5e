# SPDX-License-Identifier: MIT
"""New settings for an algorithm that runs: which can be changed in place, and how."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from rllib_per.replay import PrioritizedReplayBuffer, UniformReplayBuffer
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.sharding import ReplayShards

_REPLAY = "replay_buffer_config"
_ALPHA = f"{_REPLAY}.alpha"

CHANGEABLE = frozenset(
    {
        "lr",
        "epsilon",
        "replay_ratio",
        "training_intensity",
        "target_network_update_freq",
        "tau",
        _ALPHA,
        f"{_REPLAY}.beta",
    }
)
_DEFAULT_ALPHA = inspect.signature(PrioritizedReplayBuffer).parameters["alpha"].default


def resolve(default: Any, given: Any) -> Any:
    """The validated, frozen config that `given`, a config or a dict of one, stands for."""
    if isinstance(given, Mapping):
        config = default.update_from_dict(given)
    else:
        config = given.copy(copy_frozen=False)
    config.validate()
    config.freeze()
    return config


def changed_settings(old: Any, new: Any) -> set[str]:
    """The settings in which two configs differ; of replay's, `replay_buffer_config.<key>`."""
    before, after = dict(_flat(old)), dict(_flat(new))
    absent = object()
    return {
        name
        for name in before.keys() | after.keys()
        if not _equal(before.get(name, absent), after.get(name, absent))
    }


def can_change(changed: set[str], algorithm: Any) -> bool:
    """Whether the algorithm's parts can take these settings over as they are."""
    if "epsilon" in changed and not issubclass(algorithm.config.env_runner_cls, ApexEnvRunner):
        return False  # RLlib's own runner has a schedule of its own.
    if _ALPHA in changed and not _has_alpha(algorithm.replay):
        return False
    return changed <= CHANGEABLE


def change(algorithm: Any, config: Any) -> None:
    """Let all parts go by the changeable settings of `config` from now on."""
    algorithm.schedules.follow(config)
    algorithm.replay_ratio.ratio = config.get_replay_ratio()
    keep_alpha(algorithm.replay, config)
    algorithm.learner_group.foreach_learner(lambda learner: learner.change_settings(config))


def keep_alpha(replay: Any, config: Any) -> None:
    """Let replay have the α of `config`, whatever checkpoint it was restored from.

    Raw priorities are stored, so the masses are exactly those of a buffer that never had another α.
    """
    alpha = config.replay_buffer_config.get("alpha", _DEFAULT_ALPHA)
    if _has_alpha(replay) and replay.alpha != alpha:
        replay.alpha = alpha


def _has_alpha(replay: Any) -> bool:
    is_ours = isinstance(replay, (PrioritizedReplayBuffer, ReplayShards))
    return is_ours and not isinstance(replay, UniformReplayBuffer)


def _flat(config: Any) -> Iterator[tuple[str, Any]]:
    for name, value in config.to_dict().items():
        if name == _REPLAY:
            yield from ((f"{_REPLAY}.{key}", option) for key, option in value.items())
        elif name != "class" and not name.startswith("__"):  # RLlib's and Tune's own traces.
            yield name, value


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a is b or a == b)
    except (TypeError, ValueError):  # Arrays, for one, have no single answer.
        return False


def without_minimum(config: Any) -> Any:
    """With this, RLlib ends an iteration now, though it has less than `reporting` asks for."""
    config = config.copy(copy_frozen=False)
    config.reporting(
        min_time_s_per_iteration=0,
        min_sample_timesteps_per_iteration=0,
        min_train_timesteps_per_iteration=0,
    )
    config.freeze()
    return config
