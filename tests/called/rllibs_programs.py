# SPDX-License-Identifier: MIT
"""RLlib's own examples and tests of DQN and SAC, and what becomes of each here.

A program is given by the settings that it makes, after `rllib/examples/algorithms` and
`rllib/algorithms/dqn/tests` of Ray's repository. `test_rllibs_programs.py` runs what can run, and
docs/rllib_compatibility.md has the table.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.connectors.learner.frame_stacking import FrameStackingLearner
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.examples.envs.classes.multi_agent import MultiAgentCartPole
from ray.rllib.examples.envs.classes.stateless_cartpole import StatelessCartPole
from torch import nn

TRAINS = "trains"
FAILS_ANYWAY = "fails, as with RLlib's buffer"
NOT_IN_THIS_RLLIB = "not in RLlib 2.60.0"

_PRIORITIZED = {
    "type": "PrioritizedEpisodeReplayBuffer",
    "capacity": 50_000,
    "alpha": 0.6,
    "beta": 0.4,
}
_DENSE: dict[str, Any] = {
    "fcnet_hiddens": [256],
    "fcnet_activation": "tanh",
    "fcnet_bias_initializer": "zeros_",
    "head_fcnet_hiddens": [256],
    "head_fcnet_bias_initializer": "zeros_",
}


def cartpole_dqn(config):
    config.environment("CartPole-v1")
    config.training(
        lr=0.0005,
        train_batch_size_per_learner=32,
        replay_buffer_config=_PRIORITIZED,
        n_step=(2, 5),
        epsilon=[(0, 1.0), (25_000, 0.02)],
    )
    return config.rl_module(model_config=DefaultModelConfig(**_DENSE))


def stateless_cartpole_dqn_with_lstm(config):
    config.environment(StatelessCartPole)
    config.training(
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 100_000},
        burn_in_len=8,
    )
    return config.rl_module(
        model_config=DefaultModelConfig(**_DENSE, use_lstm=True, max_seq_len=20)
    )


class Frames(gym.Env):
    """Looks like RLlib's Pong: one frame per step, of 64 by 64 pixels."""

    observation_space = gym.spaces.Box(0.0, 1.0, (64, 64, 1))
    action_space = gym.spaces.Discrete(6)

    def __init__(self, config=None):
        self._frame = np.zeros((64, 64, 1), np.float32)

    def reset(self, *, seed=None, options=None):
        self._num_steps = 0
        return self._frame, {}

    def step(self, action):
        self._num_steps += 1
        return self._frame, 0.0, self._num_steps == 20, False, {}


def frames(config):
    """Single frames, stacked by connectors."""
    config.environment(Frames, clip_rewards=True)
    config.env_runners(
        env_to_module_connector=lambda env, spaces, device: FrameStackingEnvToModule(num_frames=4)
    )
    config.training(
        train_batch_size_per_learner=32,
        replay_buffer_config=_PRIORITIZED,
        learner_connector=lambda obs, actions: FrameStackingLearner(num_frames=4),
    )
    return config.rl_module(
        model_config=DefaultModelConfig(
            conv_filters=[(16, 4, 2), (32, 4, 2), (64, 4, 2), (128, 4, 2)],
            conv_activation="relu",
            head_fcnet_hiddens=[256],
        )
    )


def atari_dqn(config):
    return frames(config).training(n_step=3, noisy=True, num_atoms=51, v_min=-10.0, v_max=10.0)


def atari_sac(config):
    return frames(config).training(n_step=(1, 5))


def multi_agent_cartpole_dqn(config):
    config.environment(MultiAgentCartPole, env_config={"num_agents": 2})
    config.training(
        replay_buffer_config={**_PRIORITIZED, "type": "MultiAgentPrioritizedEpisodeReplayBuffer"}
    )
    return config.multi_agent(
        policies={"p0", "p1"}, policy_mapping_fn=lambda agent, *args, **kwargs: f"p{agent}"
    )


def compilation(config):
    config.environment("CartPole-v1").env_runners(num_env_runners=2)
    return config.training(num_steps_sampled_before_learning_starts=0)


def compilation_of_rainbow(config):
    return compilation(config).training(num_atoms=10, n_step=5)


def pendulum_sac(config):
    config.environment("Pendulum-v1")
    return config.training(
        lr=None,
        n_step=(2, 5),
        train_batch_size_per_learner=32,
        replay_buffer_config={**_PRIORITIZED, "alpha": 1.0, "beta": 0.0},
        num_steps_sampled_before_learning_starts=64,
    )


def learner_connector_builder(config):
    config.environment("CartPole-v1")
    return config.learners(learner_connector_builder=lambda pipeline, device: pipeline)


def mujoco_sac(config):
    """Pendulum in place of MuJoCo's robots."""
    config.environment("Pendulum-v1")
    config.training(
        initial_alpha=1.001,
        actor_lr=2e-4,
        critic_lr=8e-4,
        alpha_lr=9e-4,
        lr=None,
        target_entropy="auto",
        n_step=(1, 5),
        tau=0.005,
        train_batch_size_per_learner=256,
        target_network_update_freq=1,
        replay_buffer_config={**_PRIORITIZED, "capacity": 100_000},
        num_steps_sampled_before_learning_starts=10_000,
    )
    return config.rl_module(
        model_config=DefaultModelConfig(
            fcnet_hiddens=[256, 256],
            fcnet_activation="relu",
            fcnet_kernel_initializer=nn.init.xavier_uniform_,
            head_fcnet_hiddens=[],
            head_fcnet_activation=None,
            head_fcnet_kernel_initializer="orthogonal_",
            head_fcnet_kernel_initializer_kwargs={"gain": 0.01},
        )
    )


def stateless_cartpole_sac(config):
    return pendulum_sac(config).environment(StatelessCartPole)


def multi_agent_sac(config):
    config = multi_agent_cartpole_dqn(config)
    return config.training(lr=None)


@dataclass(frozen=True)
class Program:
    """What `settings` do with one word changed, and with only the buffer's line changed.

    Either `TRAINS`, or how it fails, as does RLlib's with its own buffer, or a part of the error;
    None: there is no such change.
    """

    shown: str
    settings: Any
    word: str | None
    buffer: str
    because: str


_LSTM = "`model_config['use_lstm']` = True is not supported"
_AGENTS = "multi-agent environments are not supported"
_ONE_AGENT = "use RLlib's MultiAgentPrioritizedEpisodeReplayBuffer"

DQN_PROGRAMS = (
    Program("`cartpole_dqn.py`", cartpole_dqn, TRAINS, TRAINS, ""),
    Program(
        "`stateless_cartpole_dqn_with_lstm.py`",
        stateless_cartpole_dqn_with_lstm,
        _LSTM,
        "such a module learns from sequences",
        "replay has transitions and no sequences",
    ),
    Program(
        "`atari_dqn.py`, `atari_rainbow.py`, `benchmark_dqn_atari.py`",
        atari_dqn,
        "`learner_connector` = ",
        FAILS_ANYWAY,
        "no learner connectors; what is there for Atari is in "
        "`configs/atari`. RLlib's `FrameStackingLearner` raises on episodes of one step",
    ),
    Program(
        "`multi_agent_cartpole_dqn.py`, `tictactoe_dqn.py`",
        multi_agent_cartpole_dqn,
        _AGENTS,
        _ONE_AGENT,
        "one agent",
    ),
    Program("`test_dqn.py`: compilation, dueling double DQN", compilation, TRAINS, TRAINS, ""),
    Program(
        "`test_dqn.py`: compilation, Rainbow",
        compilation_of_rainbow,
        TRAINS,
        TRAINS,
        "",
    ),
    Program(
        "`test_dqn.py`: learner connector builder",
        learner_connector_builder,
        NOT_IN_THIS_RLLIB,
        NOT_IN_THIS_RLLIB,
        "`learner_connector_builder` is an unknown keyword there, and here",
    ),
)

SAC_PROGRAMS = (
    Program("`pendulum_sac.py`, `mountaincar_sac.py`", pendulum_sac, None, TRAINS, ""),
    Program(
        "`mujoco_sac.py`, `halfcheetah_sac.py`, `humanoid_sac.py`, `benchmark_sac_mujoco.py`",
        mujoco_sac,
        None,
        TRAINS,
        "their settings were tried on Pendulum, not on MuJoCo",
    ),
    Program("`stateless_cartpole_sac_with_lstm.py`", stateless_cartpole_sac, None, TRAINS, ""),
    Program(
        "`atari_sac.py`",
        atari_sac,
        None,
        FAILS_ANYWAY,
        "as with `atari_dqn.py`",
    ),
    Program(
        "`multi_agent_pendulum_sac.py`, `tictactoe_sac.py`",
        multi_agent_sac,
        None,
        _ONE_AGENT,
        "one agent",
    ),
)
