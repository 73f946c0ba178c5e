# SPDX-License-Identifier: MIT
"""What a buffer must know of the algorithm that makes it, which RLlib does not tell it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

_MAKES_THE_BUFFER = "_create_local_replay_buffer_if_necessary"


@dataclass(frozen=True)
class CallingAlgorithm:
    """The part of an AlgorithmConfig that replay depends on.

    Attributes:
        n_step, gamma: The windows that it will ask for.
        seed: Its `debugging(seed=)`.
        num_learners: Into how many shards a batch is split; 0 and 1: it is not.
        num_ongoing_episodes: Environments that it samples at once.
        has_default_connectors: Whether only RLlib's own pieces turn episodes into batches.
        is_multi_agent: Whether its episodes are of several agents.
        has_lstm: Whether its `model_config` asks for one.
    """

    n_step: Any
    gamma: float
    seed: int | None
    num_learners: int
    num_ongoing_episodes: int
    has_default_connectors: bool
    is_multi_agent: bool
    has_lstm: bool


def calling_algorithm() -> CallingAlgorithm | None:
    """The algorithm that is making a replay buffer right now; None if nobody is.

    A buffer gets nothing but its own dict from RLlib, so this looks where it is called from.
    Whatever it finds can also be said in that dict.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == _MAKES_THE_BUFFER:
            config = getattr(frame.f_locals.get("self"), "config", None)
            return _read(config) if isinstance(config, AlgorithmConfig) else None
        frame = frame.f_back
    return None


def _read(config: AlgorithmConfig) -> CallingAlgorithm:
    return CallingAlgorithm(
        n_step=getattr(config, "n_step", 1),
        gamma=config.gamma,
        seed=config.seed,
        num_learners=config.num_learners,
        num_ongoing_episodes=config.num_envs_per_env_runner * max(config.num_env_runners, 1),
        has_default_connectors=_has_default_connectors(config),
        is_multi_agent=config.is_multi_agent,
        has_lstm=_has_lstm(config),
    )


def _has_lstm(config: AlgorithmConfig) -> bool:
    given = (config.model_config, getattr(config._rl_module_spec, "model_config", None) or {})
    return any(
        of.get("use_lstm", False) if isinstance(of, dict) else getattr(of, "use_lstm", False)
        for of in given
    )


def _has_default_connectors(config: AlgorithmConfig) -> bool:
    # A learner may add its own pieces when it is built, as RLlib's curiosity learners do.
    build, build_learner = type(config).build_learner_connector, config.learner_class.build
    return (
        config._learner_connector is None
        and config.add_default_connectors_to_learner_pipeline
        and build.__module__.startswith("ray.rllib.algorithms.")
        and build_learner.__module__.startswith(("ray.rllib.algorithms.", "ray.rllib.core."))
    )
