# SPDX-License-Identifier: MIT
"""New settings for an algorithm that runs: which can be changed in place, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rllib_per.dqn.config import ApexDQNConfig
from rllib_per.dqn.refusals import module_class
from rllib_per.own_forwards import has_own_forward
from rllib_per.replay import PrioritizedReplayBuffer, UniformReplayBuffer
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.settings.algorithm import Settings
from rllib_per.settings.replay import AnyReplay, Prioritized
from rllib_per.sharding import ShardedReplay

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


def resolve(default: ApexDQNConfig, given: ApexDQNConfig | Mapping[str, Any]) -> ApexDQNConfig:
    """The validated, frozen config that `given`, a config or a dict of one, stands for."""
    if isinstance(given, Mapping):
        config = default.update_from_dict(given)
    else:
        config = given.copy(copy_frozen=False)
    config.validate()
    config.freeze()
    return config


def changed_settings(old: ApexDQNConfig, new: ApexDQNConfig) -> set[str]:
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
    kind = module_class(algorithm.config)
    if "epsilon" in changed and kind is not None and has_own_forward(kind, "exploration"):
        return False  # So may a module of one's own.
    is_ours = isinstance(algorithm.settings.replay, Prioritized)
    if _ALPHA in changed and not (is_ours and _has_alpha(algorithm.replay)):
        return False
    return changed <= CHANGEABLE


def change(algorithm: Any, settings: Settings) -> None:
    """Let all parts go by the changeable ones of `settings` from now on."""
    algorithm.schedules.follow(settings)
    algorithm.replay_ratio.ratio = settings.replay_ratio
    keep_alpha(algorithm.replay, settings.replay)
    training = settings.training
    algorithm.learner_group.foreach_learner(lambda learner: learner.change_settings(training))


def keep_alpha(replay: Any, settings: AnyReplay) -> None:
    """Let replay have the α of `settings`, whatever checkpoint it was restored from.

    Raw priorities are stored, so the masses are exactly those of a buffer that never had another α.
    """
    if isinstance(settings, Prioritized) and _has_alpha(replay) and replay.alpha != settings.alpha:
        replay.alpha = settings.alpha


def _has_alpha(replay: Any) -> bool:
    is_ours = isinstance(replay, (PrioritizedReplayBuffer, ShardedReplay))
    return is_ours and not isinstance(replay, UniformReplayBuffer)


def _flat(config: ApexDQNConfig) -> Iterator[tuple[str, Any]]:
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


def without_minimum(config: ApexDQNConfig) -> ApexDQNConfig:
    """With this, RLlib ends an iteration now, though it has less than `reporting` asks for."""
    config = config.copy(copy_frozen=False)
    config.reporting(
        min_time_s_per_iteration=0,
        min_sample_timesteps_per_iteration=0,
        min_train_timesteps_per_iteration=0,
    )
    config.freeze()
    return config
