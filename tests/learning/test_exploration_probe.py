# SPDX-License-Identifier: MIT
"""A chain that greedy play does not find the end of, and noisy networks do."""

import pytest
import torch

from rllib_per import ApexDQNConfig
from rllib_per.buffers.build import build_replay
from rllib_per.runners.env_runner import ApexEnvRunner

NUM_SEEDS, NUM_UPDATES = 10, 1000


def greedy_return(seed, *, noisy):
    """After so many updates, each with two steps of four environments, and no random actions."""
    config = ApexDQNConfig().environment("rllib_per/ChainProbe-v1").debugging(seed=seed)
    config.env_runners(num_envs_per_env_runner=4)
    config.training(
        noisy=noisy,
        epsilon=0.0,
        lr=1e-3,
        gamma=0.9,
        target_network_update_freq=100,
        target_network_update_unit="updates",
    )
    config.rl_module(model_config={"encoder_hiddens": [32], "hiddens": [32]})
    settings = config.settings()
    torch.manual_seed(seed)
    runner = ApexEnvRunner(config=config, worker_index=0)
    learner = config.build_learner(spaces=runner.get_spaces())
    learner.build()
    runner.share_module(learner.module["default_policy"])
    replay = build_replay(settings.replay, settings.transitions, runner.row_spec, None)
    for t in range(NUM_UPDATES):
        replay.add(runner.collect(2, epsilon=0.0))
        if t >= 32:
            batch = replay.sample(32, 0.4)
            update = learner.update_from_replay(batch, timesteps={"env_steps": t, "episodes": 0})
            replay.update_priorities(update.ids, update.td_errors)
    return runner.sample(num_episodes=1, explore=False)[0].get_return()


@pytest.mark.slow
@pytest.mark.parametrize(("noisy", "num_solved"), [(True, range(8, 11)), (False, range(3))])
def test_noise_finds_what_greedy_play_does_not(noisy, num_solved):
    returns = [greedy_return(seed, noisy=noisy) for seed in range(NUM_SEEDS)]
    assert returns.count(12.0) in num_solved, returns
