# SPDX-License-Identifier: MIT
"""Can the experiment's environment be made and learned, as configured? Asked before Ray starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_per.action_masks import ACTION_MASK
from rllib_per.buffers.room import missing_room
from rllib_per.envs.wrappers import WrapperError
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.ray_session import quiet_logs
from rllib_per.experiments.yaml_source import ConfigError, Problem, described
from rllib_per.extras import how_to_install, missing
from rllib_per.observations import WrongDataError
from rllib_per.runners.masked_env import MaskedVectorEnv, find_source, first_infos, with_masks
from rllib_per.runners.stack_detection import find_frame_stacks
from rllib_per.runners.vector_env import env_context, make_vector_env, reset_with_seeds
from rllib_per.settings.network import Network
from rllib_per.settings.section import as_dict

# What RLlib adds to its errors is for programs: a YAML file can't switch validation off.
_RLLIBS_ADVICE = "\nTo suppress all validation errors"

# Of OpenAI Gym.
_OLD_ATARI = re.compile(r"(\w+?)(-ram)?(NoFrameskip|Deterministic)?-v[04]")


class EnvironmentFailedError(Exception):
    """An environment's own error, which is the cause, in its first reset or step."""


def check_environment(experiment: ExperimentConfig) -> None:
    """Make the environment once, as the first env runner will, and take a step; network and replay
    must suit it.

    Raises:
        ConfigError: It does not exist, refuses its `env_config`, answers what its spaces do not
            say, or is none that Q-learning plays, or that this network or replay buffer takes.
        EnvironmentFailedError: It raised in `reset` or in `step`.
    """
    with made_once(experiment) as env:
        _take_a_step(experiment, env)
        problems = [*_unrecorded(experiment), *_misfits(experiment, env)]
    if experiment.evaluation.env_config:
        _check_evaluations(experiment)
    if problems:
        raise ConfigError(problems)


def _take_a_step(experiment: ExperimentConfig, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    try:
        obs = reset_with_seeds(env, [experiment.seed])
        is_masked = isinstance(env, MaskedVectorEnv)
        env.step(obs[ACTION_MASK].argmax(axis=1) if is_masked else np.zeros(1, np.int64))
    except WrongDataError as error:
        place = f"environment.env = {experiment.environment.env}"
        raise ConfigError([Problem(place, str(error))]) from error
    except Exception as error:
        raise EnvironmentFailedError from error


def _check_evaluations(experiment: ExperimentConfig) -> None:
    """The environment as evaluations will have it."""
    changes = experiment.evaluation.env_config
    environment = experiment.environment
    environment = environment.model_copy(update={"env_config": environment.env_config | changes})
    evaluated = experiment.model_copy(update={"environment": environment})
    with made_once(evaluated, f"evaluation.env_config = {changes}"):
        pass


@contextmanager
def made_once(
    experiment: ExperimentConfig, place: str | None = None
) -> Iterator[gym.vector.VectorEnv[Any, Any, Any]]:
    """The environment as the first env runner will have it, closed after the block.

    Raises:
        ConfigError: It does not exist, refuses its `env_config`, or is none that Q-learning plays.
    """
    quiet_logs()
    name = experiment.environment.env
    try:
        env = _make(experiment)
    except WrapperError as error:
        raise ConfigError([Problem("environment.wrappers", str(error))]) from error
    except gym.error.UnregisteredEnv as error:
        place = place or f"environment.env = {name}"
        raise ConfigError([Problem(place, f"{error}{_what_to_name(name, error)}")]) from error
    except (gym.error.Error, ImportError, TypeError, AttributeError, ValueError) as error:
        says_name = str(error).startswith(f"{name} ")
        own_place = "environment.env" if says_name else f"environment.env = {name}"
        raise ConfigError([Problem(place or own_place, str(error))]) from error
    except Exception as error:  # A constructor may raise anything about its `env_config`.
        place = place or f"environment.env = {name}"
        raise ConfigError([Problem(place, described(error))]) from error
    try:
        yield env
    finally:
        env.close()


def _what_to_name(name: str, error: gym.error.UnregisteredEnv) -> str:
    """For a name that is not registered: what was meant, as far as that can be known."""
    if isinstance(error, gym.error.VersionNotFound) or set(name) & set(":/"):
        return ""
    old = _OLD_ATARI.fullmatch(name)
    if old is not None and not missing("atari"):
        import_module("ale_py")  # It registers them.
        with suppress(gym.error.Error):
            gym.spec(name)
            ours = f"rllib_per/Atari-v1 with env_config {{game: {old[1]}}}"
            return f" It is ale_py:{name}; Atari by the usual protocol is {ours}."
    return (
        " One of your own is named by its module too, as module:Name-v0, module.Class or "
        "file.py:Class, with --allow-custom-classes."
    )


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


def _unrecorded(experiment: ExperimentConfig) -> Iterator[Problem]:
    """A video that is due in an hour must not end training then."""
    interval = experiment.evaluation.video_interval_env_steps
    lacking = [module for module in missing("video") if module != "pygame"]
    if interval is not None and lacking:
        yield Problem(
            f"evaluation.video_interval_env_steps = {interval}",
            f"videos need {', '.join(lacking)}: {how_to_install('video')}",
        )


def _misfits(
    experiment: ExperimentConfig, env: gym.vector.VectorEnv[Any, Any, Any]
) -> Iterator[Problem]:
    """What of the settings does not go with the environment's spaces."""
    try:
        config = experiment.algorithm_config()
        stacks = find_frame_stacks(env, config.frame_stack, config.frame_stack_padding)
        longest = max((stack.size for stack in stacks.values()), default=1)
        settings = config.settings()
    except (ImportError, TypeError, AttributeError, ValueError):
        return  # `check_algorithm` says so, or the env runner.
    missing_rows = missing_room(settings.replay, settings.transitions, longest, settings.runners)
    if missing_rows is not None:
        yield Problem("replay.capacity", missing_rows)
    if experiment.model.module_class is None:
        spaces = (env.single_observation_space, env.single_action_space)
        try:
            with torch.random.fork_rng(devices=[]):
                config.get_rl_module_spec(spaces={DEFAULT_MODULE_ID: spaces}).build()
        except ValueError as error:
            asked = as_dict(experiment.model)
            given = {key: value for key, value in asked.items() if value != getattr(Network, key)}
            yield Problem("model", f"{error}; model is {given}")


def _make(experiment: ExperimentConfig) -> gym.vector.VectorEnv[Any, Any, Any]:
    play = experiment.environment_config().settings().play
    num_env_runners = experiment.env_runners.num_env_runners
    mode = experiment.env_runners.gym_env_vectorize_mode
    env = make_vector_env(
        play.env,
        env_context(play, min(num_env_runners, 1), num_env_runners),
        num_envs=1,
        vectorize_mode="sync" if mode == "async" else mode,  # One needs no process of its own.
        drop_leaves=play.drop_leaves,
        around=play.wrappers,
    )
    try:
        source = find_source(env, experiment.env_runners.action_masks, lambda: first_infos(env))
    except ValueError:
        env.close()
        raise
    return with_masks(env, source)
