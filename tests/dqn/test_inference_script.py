# SPDX-License-Identifier: MIT
"""A checkpoint is played as RLlib documents: its module between its connectors."""

import gymnasium as gym
import pytest
import torch
from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline
from ray.rllib.core import (
    COMPONENT_ENV_RUNNER,
    COMPONENT_ENV_TO_MODULE_CONNECTOR,
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_MODULE_TO_ENV_CONNECTOR,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per import ApexDQNConfig

pytestmark = pytest.mark.usefixtures("one_ray")
NUM_CPUS = 3


@pytest.mark.ray
@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_rllibs_documented_script_plays_our_checkpoint(build, tmp_path, num_env_runners):
    algorithm = build(
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=num_env_runners)
        .training(num_steps_sampled_before_learning_starts=32)
        .reporting(min_sample_timesteps_per_iteration=64)
    )
    algorithm.train()
    path = algorithm.save_to_path(tmp_path)
    algorithm.restore_from_path(path)
    runner = tmp_path / COMPONENT_ENV_RUNNER
    env_to_module = EnvToModulePipeline.from_checkpoint(runner / COMPONENT_ENV_TO_MODULE_CONNECTOR)
    module_to_env = ModuleToEnvPipeline.from_checkpoint(runner / COMPONENT_MODULE_TO_ENV_CONNECTOR)
    learner = tmp_path / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER
    module = RLModule.from_checkpoint(learner / COMPONENT_RL_MODULE / DEFAULT_MODULE_ID)

    env = gym.make("CartPole-v1")
    obs, _ = env.reset(seed=1)
    episode = SingleAgentEpisode(
        observations=[obs],
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    while not episode.is_done:
        shared_data = {}
        batch = env_to_module(
            episodes=[episode], rl_module=module, explore=False, shared_data=shared_data
        )
        output = module.forward_inference(batch)
        to_env = module_to_env(
            batch=output,
            episodes=[episode],
            rl_module=module,
            explore=False,
            shared_data=shared_data,
        )
        action = to_env.pop(Columns.ACTIONS)[0]
        q_values = algorithm.get_module().compute_q_values({"obs": torch.tensor(obs[None])})
        assert action == q_values["qf_preds"].argmax()
        obs, reward, terminated, truncated, _ = env.step(action)
        episode.add_env_step(
            obs, action, reward, terminated=terminated, truncated=truncated,
            extra_model_outputs={k: v[0] for k, v in to_env.items()},
        )  # fmt: skip
    assert len(episode) > 1
