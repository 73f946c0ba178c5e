# SPDX-License-Identifier: MIT
"""The settings of a whole algorithm: the sections, and what only RLlib's config has.

`ApexDQNConfig.settings` makes them where RLlib hands a config in: in `ApexDQN.setup`,
`ApexEnvRunner` and `ApexDQNLearner`. A test lists what is still read of RLlib's config elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.replay import AnyReplay, TransitionSettings
from rllib_per.settings.rules import Positive
from rllib_per.settings.runners import EnvRunners
from rllib_per.settings.section import Section
from rllib_per.settings.training import Training


@dataclass(frozen=True)
class FailureSettings(Section):
    """RLlib's settings of what follows when an env runner fails."""

    restarts_runners: bool = True
    """`restart_failed_env_runners`."""
    leaves_runners_out: bool = False
    """`ignore_env_runner_failures`."""
    max_restarts: int = 1000
    """`max_num_env_runner_restarts`; -1: any number."""
    tolerance: int = 1
    """`num_consecutive_env_runner_failures_tolerance`."""


@dataclass(frozen=True)
class RunnerSettings(EnvRunners):
    """Env runners, and RLlib's own settings of them."""

    num_rows: Positive = 1
    """`rollout_fragment_length`, found where it is "auto"."""
    is_columnar: bool = True
    """Whether they are `ApexEnvRunner`s, or RLlib's, which make episodes."""
    sample_timeout_s: float = 60.0
    """How long a runner may take to answer."""
    restore_timeout_s: float = 1800.0
    """How long there may be no runner at all (RLlib's `env_runner_restore_timeout_s`)."""
    max_calls_in_flight: Positive = 2
    """To one runner (RLlib's `max_requests_in_flight_per_env_runner`)."""
    failures: FailureSettings = FailureSettings()
    """What follows when one fails."""

    @property
    def num_steps_per_call(self) -> int:
        """Env steps of a fragment, at most."""
        return self.num_rows * self.num_envs_per_env_runner


@dataclass(frozen=True)
class PlaySettings(Section):
    """What one env runner plays, and how: RLlib's settings, those of an evaluation if it is one."""

    env: Any = None
    """As `ApexDQNConfig.environment` takes it."""
    env_config: Any = None
    """The environment's own."""
    drop_leaves: tuple[str, ...] = ()
    """Parts of the observations that are left out."""
    wrappers: Any = ()
    """What is put around it, as `rllib_per.envs.wrappers.layers` makes it."""
    is_remote: bool = False
    """RLlib's `remote_worker_envs`, for the environment to know."""
    restarts_failed_envs: bool = False
    """Whether an environment that fails is made again."""
    num_sample_rows: Positive | None = None
    """Rows that `sample` plays unless told; None: one episode per environment."""
    max_env_steps_per_episode: Positive | None = None
    """See `EpisodeBound`."""
    in_evaluation: bool = False
    """Whether it is a runner of an evaluation."""
    smoothing_window: Positive = 100
    """Episodes of which RLlib shows the mean return, of all runners together."""
    records_q: bool = False
    """Whether replay wants the Q-values of what was played."""


@dataclass(frozen=True)
class Settings:
    """All of it, translated once.

    Attributes:
        replay_ratio: Transitions sampled per transition added, the natural one where none is given.
        batch_size: Transitions of an update, of all learners together.
        min_env_steps_per_iteration: Of one `train`.
        saves_replay: Whether checkpoints hold the replay buffer.
        is_asynchronous: Whether env runners feed replay while learners learn.
        max_updates_in_flight: To the learners (RLlib's `max_requests_in_flight_per_learner`).
        logs_gradients: Whether learners report the gradients' norm (RLlib's `log_gradients`).
    """

    training: Training
    replay: AnyReplay
    runners: RunnerSettings
    play: PlaySettings
    learners: LearnerSettings
    transitions: TransitionSettings
    explore: bool
    replay_ratio: float
    batch_size: int
    min_env_steps_per_iteration: int
    saves_replay: bool
    is_asynchronous: bool
    max_updates_in_flight: int
    logs_gradients: bool
