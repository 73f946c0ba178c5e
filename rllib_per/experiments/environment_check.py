# SPDX-License-Identifier: MIT
"""Can the experiment's environment be made and learned, as configured? Asked before Ray starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.ray_session import quiet_logs
from rllib_per.experiments.yaml_source import ConfigError, Problem, described
from rllib_per.runners.stack_detection import find_frame_stack
from rllib_per.runners.vector_env import env_context, make_vector_env

# Replay buffers whose least capacity is known.
_OURS = ("prioritized", "uniform", "sharded")

# What RLlib adds to its errors is for programs: a YAML file can't switch validation off.
_RLLIBS_ADVICE = "\nTo suppress all validation errors"


def check_environment(experiment: ExperimentConfig) -> None:
    """Make the environment once, as the first env runner will; network and replay must suit it.

    Raises:
        ConfigError: It does not exist, refuses its `env_config`, or is none that Q-learning plays,
            or that this network or replay buffer takes.
    """
    try:
        env = _make(experiment)
    except (gym.error.Error, ImportError, TypeError, AttributeError, ValueError) as error:
        place = f"environment.env = {experiment.environment.env}"
        raise ConfigError([Problem(place, str(error))]) from error
    except Exception as error:  # A constructor may raise anything about its `env_config`.
        place = f"environment.env = {experiment.environment.env}"
        raise ConfigError([Problem(place, described(error))]) from error
    try:
        problems = list(_misfits(experiment, env))
    finally:
        env.close()
    if problems:
        raise ConfigError(problems)


def check_algorithm(experiment: ExperimentConfig) -> None:
    """Let RLlib, the algorithm and the replay buffer check their settings, before a run is made.

    Raises:
        ConfigError: With everything that is wrong.
    """
    quiet_logs()
    try:
        experiment.algorithm_config().validate()
    except (ImportError, TypeError, AttributeError, ValueError) as error:
        text = str(error).partition(_RLLIBS_ADVICE)[0]
        _, *listed = text.split("\n  - ")
        problems = [Problem("the experiment", told) for told in listed or [text]]
        raise ConfigError(problems) from error


def _misfits(
    experiment: ExperimentConfig, env: gym.vector.VectorEnv[Any, Any, Any]
) -> Iterator[Problem]:
    """What of the settings does not go with the environment's spaces."""
    try:
        config = experiment.algorithm_config()
        stack = find_frame_stack(env, config.frame_stack, config.frame_stack_padding)
        least = int(np.max(config.n_step)) + (stack.size if stack else 1)
    except (ImportError, TypeError, AttributeError, ValueError):
        return  # `check_algorithm` says so, or the env runner.
    replay = experiment.replay
    num_shards = replay.num_shards if replay.type == "sharded" else 1
    if replay.type in _OURS and replay.capacity // num_shards < least:
        of_each = f" in each of {num_shards} shards" if num_shards > 1 else ""
        yield Problem(
            "replay.capacity",
            f"must be at least {least} rows{of_each}, for windows of n_step = {config.n_step} and "
            f"their frames: got {replay.capacity}; raise it, or lower training.n_step",
        )
    if experiment.model.module_class is None:
        spaces = (env.single_observation_space, env.single_action_space)
        try:
            with torch.random.fork_rng(devices=[]):
                config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: spaces}).build()
        except ValueError as error:
            given = experiment.model.model_dump(exclude_defaults=True)
            yield Problem("model", f"{error}; model is {given}")


def _make(experiment: ExperimentConfig) -> gym.vector.VectorEnv[Any, Any, Any]:
    config = experiment.environment_config()
    num_env_runners = config.num_env_runners
    config.env_runners(num_envs_per_env_runner=1)
    if config.gym_env_vectorize_mode == "async":
        config.env_runners(gym_env_vectorize_mode="sync")  # One needs no process of its own.
    return make_vector_env(config, env_context(config, min(num_env_runners, 1), num_env_runners))
