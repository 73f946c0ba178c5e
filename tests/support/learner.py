# SPDX-License-Identifier: MIT
"""Learners and batches to test them with."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from rllib_per import ApexDQNConfig
from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.replay.fragment import TransitionBatch

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
NUM_ACTIONS = 3
START = {"env_steps": 0, "episodes": 0}  # What an update may know of the run.
ALWAYS = {"interval": 1, "tau": 0.1}  # Of `redo`.

# What can be learned, each as settings of the config.
_FRACTIONS = {
    "type": "implicit_quantile",
    "num_taus": 8,
    "num_target_taus": 6,
    "num_acting_taus": 4,
    "num_cosines": 16,
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "expected": {},
    "atoms": {"num_atoms": 21, "v_min": -4.0, "v_max": 4.0},
    "quantiles": {"distribution": {"type": "quantile", "num_quantiles": 16}},
    "fractions": {"distribution": _FRACTIONS},
    "munchausen": {"munchausen": {"tau": 0.1}},
    "all at once": {
        "distribution": _FRACTIONS,
        "munchausen": {"policy": "online"},
        "priority": "quantile_td_errors",
        "noisy": True,
        "redo": {"interval": 7, "tau": 0.3},
    },
}
BEYOND_Q_VALUES = {name: OBJECTIVES[name] for name in OBJECTIVES if name != "expected"}


def learner_config(**settings: Any) -> ApexDQNConfig:
    """A small network and no surprises; `settings` are the config's attributes."""
    config = ApexDQNConfig().training(lr=1e-3, gamma=0.9).debugging(seed=7)
    config.rl_module(model_config={"encoder_hiddens": [16], "hiddens": [8]})
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def build_learner(**settings: Any) -> ApexDQNLearner:
    """A built learner for `OBSERVATIONS` and `NUM_ACTIONS`; equal settings, equal parameters."""
    return build_from(learner_config(**settings))


def build_from(
    config: ApexDQNConfig, observations: gym.spaces.Box = OBSERVATIONS
) -> ApexDQNLearner:
    spaces = {"default_policy": (observations, gym.spaces.Discrete(NUM_ACTIONS))}
    learner = config.build_learner(spaces=spaces)
    learner.build()
    return learner


def net(learner: ApexDQNLearner) -> Any:
    """The module that learns."""
    return learner.module["default_policy"].unwrapped()


def parameters(learner: ApexDQNLearner) -> torch.Tensor:
    """All of the network that learns, in one row."""
    return torch.cat([p.detach().reshape(-1).cpu() for p in net(learner).q_network.parameters()])


def random_batch(seed: int = 0, size: int = 8, gamma: float = 0.9) -> TransitionBatch:
    """Single-step transitions, some of them terminal."""
    rng = np.random.default_rng(seed)
    return TransitionBatch(
        obs=rng.standard_normal((size, 4), dtype=np.float32),
        actions=rng.integers(0, NUM_ACTIONS, size),
        n_step_returns=rng.standard_normal(size, dtype=np.float32),
        next_obs=rng.standard_normal((size, 4), dtype=np.float32),
        bootstrap_discounts=np.where(rng.random(size) < 0.25, 0, gamma).astype(np.float32),
        importance_weights=rng.uniform(0.1, 1.0, size).astype(np.float32),
        ids=rng.permutation(1000)[:size] + 1000 * seed,
    )
