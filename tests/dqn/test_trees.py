# SPDX-License-Identifier: MIT
"""Observations of every kind, from the environment to the gradient, without Ray's processes."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_per.envs.leaf_probe import SPACES
from rllib_per.learning.module import ApexDQNModule
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import runner_config

MODEL = {"fcnet_hiddens": [16], "head_fcnet_hiddens": [16]}
WITH_IMAGE = MODEL | {"conv_filters": [[4, 12, 6]]}


def trained(env, num_updates, *, env_config=None, model=MODEL, num_rows=200, **environment):
    """A runner whose module has learned from what it played, at random."""
    torch.manual_seed(0)
    config = runner_config(
        env, 8, env_config=env_config, training={"lr": 0.01, "gamma": 0.9, "n_step": 3}
    )
    config.environment(**environment).rl_module(model_config=model)
    runner = ApexEnvRunner(config=config)
    learner = config.build_learner(spaces=runner.get_spaces())
    learner.build()
    runner.share_module(learner.module["default_policy"])
    replay = PrioritizedReplayBuffer(10 * num_rows, runner.row_spec, n_step=3, gamma=0.9, seed=0)
    replay.add(runner.collect(num_rows, epsilon=1.0))
    counts = {"env_steps": 0, "episodes": 0}
    for update in range(num_updates):
        batch = replay.sample(64, 0.4)
        done = learner.update_from_replay(batch, timesteps=counts)
        replay.update_priorities(done.ids, done.td_errors)
        counts["env_steps"] = 50 * update
    return runner


def greedy_return(runner, num_episodes=40):
    return np.mean(
        [e.get_return() for e in runner.sample(num_episodes=num_episodes, explore=False)]
    )


@pytest.mark.parametrize("signal", sorted(SPACES))
def test_a_leaf_that_says_everything_is_learned_from(signal):
    """Who does not see it earns 0 on average; the optimum is 1."""
    runner = trained(
        "rllib_per/LeafProbe-v1",
        150,
        env_config={"signal": signal, "leaves": sorted({signal, "vector", "multi_binary"})},
        model=WITH_IMAGE if signal == "image" else MODEL,
    )
    assert greedy_return(runner) >= 0.9


def test_a_nested_leaf_is_learned_from():
    runner = trained(
        "rllib_per/LeafProbe-v1",
        120,
        env_config={"signal": "discrete", "leaves": ["discrete", "vector"], "nested": True},
    )
    assert greedy_return(runner) >= 0.9


def test_a_discrete_observation_is_learned_from():
    """FrozenLake's four actions from its sixteen cells, on ice that does not slip."""
    runner = trained(
        "FrozenLake-v1",
        1500,
        env_config={"is_slippery": False, "map_name": "4x4"},
        model={"encoder_hiddens": [], "hiddens": []},
        num_rows=4000,  # Random play reaches the goal in 1 of 70 episodes, of 8 steps each.
    )
    assert greedy_return(runner, 8) == 1.0


class Told(gym.Env):
    """Pays for the action, of three from 5 on, that is one more than what its goal says."""

    observation_space = gym.spaces.Dict(
        mission=gym.spaces.Text(10),
        goal=gym.spaces.Dict(name=gym.spaces.Text(10), x=gym.spaces.Discrete(3, start=4)),
    )
    action_space = gym.spaces.Discrete(3, start=5)

    def __init__(self, context):
        pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = int(self.np_random.integers(3))
        return {"mission": "go", "goal": {"name": "door", "x": 4 + self.goal}}, {}

    def step(self, action):
        reward = float(action == 5 + self.goal)
        return self.reset()[0], reward, True, False, {}


def test_texts_are_left_out_and_actions_start_where_the_environment_says():
    runner = trained(Told, 100, drop_leaves=["mission", "goal/name"])
    assert runner.module.observation_space == gym.spaces.Dict(
        goal=gym.spaces.Dict(x=gym.spaces.Discrete(3, start=4))
    )
    assert greedy_return(runner) == 1.0


def test_rllibs_loss_and_hooks_see_the_tree_as_the_space_has_it():
    config = runner_config("rllib_per/LeafProbe-v1", 2, env_config={"nested": True})
    config.rl_module(model_config=WITH_IMAGE)
    runner = ApexEnvRunner(config=config)
    replay = PrioritizedReplayBuffer(500, runner.row_spec, seed=0)
    replay.add(runner.collect(20, epsilon=1.0))
    batch, seen, td_errors = replay.sample(16, 0.4), [], []

    class Hooked(config.get_default_learner_class()):
        def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
            seen.append(batch)
            return super().compute_loss_for_module(
                module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
            )

    for kind in (config.get_default_learner_class(), Hooked):
        own = config.copy(copy_frozen=False)
        own._learner_class = kind
        torch.manual_seed(0)
        learner = own.build_learner(spaces=runner.get_spaces())
        learner.build()
        done = learner.update_from_replay(batch, timesteps={"env_steps": 0, "episodes": 0})
        td_errors.append(done.td_errors)
    assert isinstance(seen[0][Columns.OBS]["pair"], tuple)
    np.testing.assert_allclose(*td_errors, rtol=1e-5)


def test_a_stateful_module_is_refused_by_its_name():
    class Remembering(ApexDQNModule):
        def get_initial_state(self):
            return {"h": torch.zeros(3)}

    config = runner_config("CartPole-v1")
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=Remembering))
    runner = ApexEnvRunner(config=config)
    with pytest.raises(ValueError, match=r"Remembering is stateful .* replay has transitions"):
        config.build_learner(spaces=runner.get_spaces())
