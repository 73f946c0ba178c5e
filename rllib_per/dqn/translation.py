# SPDX-License-Identifier: MIT
"""From RLlib's config to `rllib_per.settings`: its attributes are read here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gymnasium.envs.registration import VectorizeMode

from rllib_per.envs.wrappers import layers
from rllib_per.settings.algorithm import (
    FailureSettings,
    PlaySettings,
    RunnerSettings,
    Settings,
)
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.replay import Prioritized, TransitionSettings, replay_of
from rllib_per.settings.runners import EnvRunners
from rllib_per.settings.section import names_of
from rllib_per.settings.training import SECTIONS_WITHIN, Training

if TYPE_CHECKING:
    from rllib_per.dqn.config import ApexDQNConfig


def settings_of(config: ApexDQNConfig) -> Settings:
    """What `config` says, typed and checked.

    Raises:
        ValueError, TypeError: A value is none that the setting may have.
    """
    n_step = tuple(config.n_step) if isinstance(config.n_step, (list, tuple)) else config.n_step
    replay = replay_of(config.replay_buffer_config)
    learners = {
        name: getattr(config, name)
        for name in names_of(LearnerSettings)
        if name != "num_torch_threads"  # Of the process that trains, not of the algorithm.
    }
    return Settings(
        training=_training(config),
        replay=replay,
        runners=_runners(config),
        play=_play(config, records_q=isinstance(replay, Prioritized) and replay.records_q),
        learners=LearnerSettings(**learners),
        transitions=TransitionSettings(n_step, config.gamma, config.get_reward_clip(), config.seed),
        explore=config.explore,
        replay_ratio=config.get_replay_ratio(),
        batch_size=config.total_train_batch_size,
        min_env_steps_per_iteration=config.min_sample_timesteps_per_iteration or 1,
        saves_replay=config.store_buffer_in_checkpoints,
        is_asynchronous=config.is_asynchronous,
        max_updates_in_flight=config.max_requests_in_flight_per_learner,
        logs_gradients=config.log_gradients,
    )


def _training(config: ApexDQNConfig) -> Training:
    values = {name: getattr(config, name) for name in names_of(Training)}
    values |= {name: section_of(values[name]) for name, section_of in SECTIONS_WITHIN.items()}
    return Training(**values)


def _runners(config: ApexDQNConfig) -> RunnerSettings:
    values = {name: getattr(config, name) for name in names_of(EnvRunners)}
    values["gym_env_vectorize_mode"] = VectorizeMode(config.gym_env_vectorize_mode).value
    return RunnerSettings(
        **values,
        num_rows=config.get_rollout_fragment_length(),
        is_columnar=config.has_columnar_runner,
        sample_timeout_s=config.sample_timeout_s,
        restore_timeout_s=config.env_runner_restore_timeout_s,
        max_calls_in_flight=config.max_requests_in_flight_per_env_runner,
        failures=FailureSettings(
            config.restart_failed_env_runners,
            config.ignore_env_runner_failures,
            config.max_num_env_runner_restarts,
            config.num_consecutive_env_runner_failures_tolerance,
        ),
    )


def _play(config: ApexDQNConfig, *, records_q: bool) -> PlaySettings:
    plays_rows = config.batch_mode == "truncate_episodes"
    return PlaySettings(
        env=config.env,
        env_config=config.env_config,
        drop_leaves=tuple(config.drop_leaves),
        wrappers=layers(config.wrappers, in_evaluation=config.in_evaluation),
        is_remote=config.remote_worker_envs,
        restarts_failed_envs=config.restart_failed_sub_environments,
        num_sample_rows=config.get_rollout_fragment_length() if plays_rows else None,
        max_env_steps_per_episode=config.max_env_steps_per_episode,
        in_evaluation=config.in_evaluation,
        smoothing_window=config.metrics_num_episodes_for_smoothing,
        records_q=records_q,
    )
