# SPDX-License-Identifier: MIT
"""The probe environment of masks: only values of legal actions alone lead to its optimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import runner_config

GAMMA = 0.9


def learn(masks_in, change=lambda batch: batch, num_updates=400):
    """Q-values (2, 3) at the start and in a room, and the mean greedy return."""
    torch.manual_seed(0)
    config = runner_config("rllib_per/MaskProbe-v1", 4, env_config={"masks_in": masks_in})
    config.training(gamma=GAMMA, dueling=False, lr=5e-3, target_network_update_freq=20)
    config.rl_module(model_config={"encoder_hiddens": [16], "hiddens": []})
    runner = ApexEnvRunner(config=config)
    learner = config.build_learner(spaces=runner.get_spaces())
    learner.build()
    runner.share_module(learner.module["default_policy"])
    buffer = PrioritizedReplayBuffer(2000, runner.row_spec, gamma=GAMMA, seed=1)
    buffer.add(runner.collect(60, epsilon=1.0))
    for update in range(num_updates):
        batch = change(buffer.sample(64, 0.4))
        learner.update_from_replay(batch, timesteps={"env_steps": update, "episodes": 0})
    everything = torch.ones(2, 3, dtype=torch.int8)
    obs = {"observations": torch.tensor([[0.0], [1.0]]), "action_mask": everything}
    with torch.no_grad():
        q_values = runner.module.compute_q_values({"obs": obs})["qf_preds"].numpy()
    episodes = runner.sample(num_episodes=8, explore=False)
    return q_values, np.mean([episode.get_return() for episode in episodes])


@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_with_masks_the_optimum_is_found(masks_in):
    q_values, episode_return = learn(masks_in)
    np.testing.assert_allclose(q_values[0, :2], [0.5, GAMMA], atol=0.03)
    np.testing.assert_allclose(q_values[1, [0, 2]], [0.0, 1.0], atol=0.03)
    assert episode_return == 1.0


def all_legal(batch):
    """As if the mask were looked at when acting only."""
    masks = np.ones_like(batch.next_obs["action_mask"])
    return replace(batch, next_obs=batch.next_obs | {"action_mask": masks})


def test_a_bootstrap_from_illegal_actions_misses_it():
    q_values, episode_return = learn("info", all_legal)
    assert q_values[0, 0] > q_values[0, 1] + 0.2
    assert episode_return == 0.5
