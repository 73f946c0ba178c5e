# SPDX-License-Identifier: MIT
"""Can the experiment's environment be made and learned, as configured? Asked before Ray starts."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.ray_session import quiet_logs
from rllib_per.experiments.yaml_source import ConfigError, Problem, described
from rllib_per.runners.vector_env import env_context, make_vector_env


def check_environment(experiment: ExperimentConfig) -> None:
    """Make the environment once, as the first env runner will.

    Raises:
        ConfigError: It does not exist, refuses its `env_config`, or is none that Q-learning plays.
    """
    try:
        _make(experiment).close()
    except (gym.error.Error, ImportError, TypeError, AttributeError, ValueError) as error:
        place = f"environment.env = {experiment.environment.env}"
        raise ConfigError([Problem(place, str(error))]) from error
    except Exception as error:  # A constructor may raise anything about its `env_config`.
        place = f"environment.env = {experiment.environment.env}"
        raise ConfigError([Problem(place, described(error))]) from error


def check_algorithm(experiment: ExperimentConfig) -> None:
    """Let RLlib, the algorithm and the replay buffer check their settings, before a run is made.

    Raises:
        ConfigError: With everything that is wrong.
    """
    quiet_logs()
    try:
        experiment.algorithm_config().validate()
    except (ImportError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError([Problem("the experiment", str(error))]) from error


def _make(experiment: ExperimentConfig) -> gym.vector.VectorEnv[Any, Any, Any]:
    config = experiment.environment_config()
    num_env_runners = config.num_env_runners
    config.env_runners(num_envs_per_env_runner=1)
    if config.gym_env_vectorize_mode == "async":
        config.env_runners(gym_env_vectorize_mode="sync")  # One needs no process of its own.
    return make_vector_env(config, env_context(config, min(num_env_runners, 1), num_env_runners))
