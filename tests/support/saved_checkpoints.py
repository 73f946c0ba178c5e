# SPDX-License-Identifier: MIT
"""One small algorithm of every mode, and what a checkpoint of it holds.

`tests/data/version_0_1` was written by version 0.1 at commit 4cd8a10: two iterations of each, saved
with `save_to_path`; contents.json is what a second algorithm had after it restored that.
"""

import numpy as np
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig

MODES = ("local", "uniform", "sharded", "two_learners", "drop_in")
BATCH_SIZE = 16
NUM_DRAWS = 4


def config_of(mode):
    """The settings of `mode`, as they were saved."""
    config = DQNConfig() if mode == "drop_in" else ApexDQNConfig()
    config = (
        config.environment("CartPole-v1")
        .training(
            n_step=3,
            train_batch_size_per_learner=8 if mode == "two_learners" else 16,
            num_steps_sampled_before_learning_starts=100,
            store_buffer_in_checkpoints=True,
            target_network_update_freq=64,
        )
        .env_runners(num_envs_per_env_runner=2, rollout_fragment_length=4)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8], head_fcnet_hiddens=[8]))
        .reporting(min_sample_timesteps_per_iteration=200)
        .debugging(seed=3)
    )
    replay = {"type": "prioritized", "capacity": 240, "alpha": 0.6, "beta": 0.4}
    if mode == "uniform":
        replay = {"type": "uniform", "capacity": 240}
    elif mode == "sharded":
        replay |= {"type": "sharded", "num_shards": 2, "shard_num_cpus": 0}
        config.env_runners(num_env_runners=1)
    elif mode == "two_learners":
        config.learners(num_learners=2)
    elif mode == "drop_in":
        replay = {
            "type": "rllib_per.FastPrioritizedEpisodeReplayBuffer",
            "capacity": 240,
            "alpha": 0.6,
            "beta": 0.4,
        }
    return config.training(replay_buffer_config=replay)


def content(algorithm):
    """What a restored algorithm must have, as JSON."""
    weights = algorithm.learner_group.get_weights()["default_policy"]
    found = {
        "weights": {name: float(np.abs(value).sum()) for name, value in sorted(weights.items())},
    }
    buffer = algorithm.local_replay_buffer
    if isinstance(algorithm.config, ApexDQNConfig):
        found["env_steps"] = algorithm.progress.env_steps
        found["episodes"] = algorithm.progress.episodes
        found["updates"] = algorithm.progress.updates
        found["size"] = len(algorithm.replay)
        batches = [algorithm.replay.sample(BATCH_SIZE, 0.4) for _ in range(NUM_DRAWS)]
        found["ids"] = [batch.ids.tolist() for batch in batches]
        found["importance_weights"] = [
            np.round(batch.importance_weights.astype(float), 6).tolist() for batch in batches
        ]
        found["obs"] = [float(np.abs(batch.obs).sum()) for batch in batches]
    else:
        found["size"] = buffer.get_num_timesteps()
        found["episodes"] = buffer.get_num_episodes()
    return found
