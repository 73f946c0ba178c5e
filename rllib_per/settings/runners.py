# SPDX-License-Identifier: MIT
"""Who plays, how it explores, and how often there are figures of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rllib_per.settings.rules import Count, Positive, PositiveFloat
from rllib_per.settings.section import Section

RewardClip = bool | PositiveFloat | None


@dataclass(frozen=True)
class EnvRunners(Section):
    """Who plays, and how it explores."""

    num_env_runners: Count = 0
    """Actors that collect experience; 0 collects in the driver."""
    num_envs_per_env_runner: Positive = 1
    """Environments that each env runner steps together."""
    rollout_fragment_length: Literal["auto"] | Positive = "auto"
    """Rows that one runner collects per environment and round."""
    gym_env_vectorize_mode: Literal["sync", "async", "vector_entry_point"] = "sync"
    """How environments are stepped: one after the other, in processes, or by the environment's own
    vector class."""
    per_env_epsilon: bool = False
    """Env i of N explores with ε^(1 + 7i/(N-1)) (Horgan et al. 2018)."""
    frame_stack: Positive | None = None
    """Frames per observation; null finds it from the environment, but not on RLlib's env runner; 1
    stores observations whole."""
    frame_stack_padding: Literal["zero", "repeat"] = "zero"
    """What the environment puts before an episode's first frame."""
    action_masks: Literal["auto", "info", "observation", "none"] = "auto"
    """Where the environment says which actions are legal: under `action_mask` in its infos, or as a
    leaf of that name in `Dict` observations; auto looks for the leaf, and else into the infos of
    the first reset. With none, infos are ignored, and such a leaf is an input like others."""

    @property
    def num_envs_total(self) -> int:
        """Environments of all runners."""
        return self.num_envs_per_env_runner * max(self.num_env_runners, 1)


@dataclass(frozen=True)
class EpisodeBound(Section):
    """How long an episode of an evaluation may be."""

    max_env_steps_per_episode: Positive | None = None
    """Longer episodes are cut there and counted as `num_episodes_cut`; null is 27,000 for Atari
    (108,000 frames), else the environment's own time limit, else 100,000."""


@dataclass(frozen=True)
class Reporting(Section):
    """How often there are figures."""

    min_sample_timesteps_per_iteration: Count = 1000
    """Env steps between two rows of metrics."""
    metrics_num_episodes_for_smoothing: Positive = 100
    """Training episodes of which the mean return is shown."""
