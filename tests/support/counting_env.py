# SPDX-License-Identifier: MIT
"""An environment whose observations and rewards say where they come from, and a runner on it."""

import itertools

import gymnasium as gym
import numpy as np

from rllib_per import ApexDQNConfig
from rllib_per.runners.env_runner import ApexEnvRunner

NUM_ACTIONS = 3


class CountingEnv(gym.Env):
    """Observes (env, episode, step); the reward encodes these and the action.

    Episode e of env i has `lengths[i][e % len(lengths[i])]` steps; those of odd number are
    truncated, the others terminate.
    """

    action_space = gym.spaces.Discrete(NUM_ACTIONS)

    def __init__(self, index, lengths, dtype=np.float32):
        self.observation_space = gym.spaces.Box(-1, 10_000, (3,), dtype)
        self.index, self.lengths, self.episode = index, lengths, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action):
        self.t += 1
        over = self.t >= self.lengths[self.episode % len(self.lengths)]
        is_odd = self.episode % 2 == 1
        reward = self.reward(self.index, self.episode, self.t, action)
        return self._observation(), reward, over and not is_odd, over and is_odd, {}

    @staticmethod
    def reward(index, episode, t, action):
        return index + episode / 8 + t / 64 + action / 1024

    def _observation(self):
        return np.array([self.index, self.episode, self.t], self.observation_space.dtype)


class CountingEnvOfWorker(CountingEnv):
    """Is made of what RLlib gives to classes: env_config's "length", and who makes it."""

    def __init__(self, context):
        super().__init__(context.worker_index, [context["length"]])


def runner_config(env, num_envs=1, *, training=None, env_config=None, **env_runners):
    """An ApexDQNConfig with a small network for `env`."""
    return (
        ApexDQNConfig()
        .environment(env, env_config=env_config or {})
        .env_runners(num_envs_per_env_runner=num_envs, **env_runners)
        .training(**(training or {}))
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=5)
    )


def counting_runner(lengths, *, dtype=np.float32, configure=lambda config: config, **settings):
    """A runner with one CountingEnv per entry of `lengths`."""
    index = itertools.count()

    def create(context):
        i = next(index) % len(lengths)
        return CountingEnv(i, lengths[i], dtype)

    config = configure(runner_config(create, len(lengths), **settings))
    return ApexEnvRunner(config=config)
