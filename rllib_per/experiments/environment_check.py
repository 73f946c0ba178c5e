# SPDX-License-Identifier: MIT
"""Can the experiment's environment be made and learned by Q-learning? Asked before Ray starts."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rllib_per.experiments.experiment import ExperimentConfig, import_class, is_dotted_path
from rllib_per.experiments.yaml_source import ConfigError, Problem


def check_environment(experiment: ExperimentConfig) -> None:
    """Make the environment once, and look at its spaces.

    Raises:
        ConfigError: It does not exist, refuses its `env_config`, or its actions are not discrete.
    """
    name = experiment.environment.env
    try:
        env = _make(name, experiment.environment.env_config)
    except (gym.error.Error, ImportError, TypeError, AttributeError) as error:
        raise ConfigError([Problem(f"environment.env = {name}", str(error))]) from error
    space = getattr(env, "single_action_space", env.action_space)
    env.close()
    if not isinstance(space, gym.spaces.Discrete):
        message = f"Q-learning needs a Discrete action space: got {space}; wrap the environment"
        raise ConfigError([Problem(f"environment.env = {name}", message)])


def _make(name: str, env_config: dict[str, Any]) -> Any:
    import rllib_per.envs  # noqa: F401  (registers the environments of this package)

    if is_dotted_path(name):
        return import_class(name)(env_config)
    module, _, _ = name.rpartition(":")
    if module:
        __import__(module)
    if gym.spec(name).entry_point is None:
        return gym.make_vec(name, num_envs=1, **env_config)
    return gym.make(name, **env_config)
