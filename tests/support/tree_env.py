# SPDX-License-Identifier: MIT
"""An environment with one leaf of every kind, each of which says which step it is of."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from tests.support.counting_env import NUM_ACTIONS, CountingEnv

SPACE = spaces.Dict(
    {
        "pos": spaces.Dict(
            {
                "x": spaces.Box(-1e4, 1e4, (2,), np.float64),
                "cell.id": spaces.Discrete(300, start=5),
            }
        ),
        "image": spaces.Box(0, 255, (3, 4), np.uint8),
        "pair": spaces.Tuple((spaces.MultiDiscrete([7, 300]), spaces.MultiBinary(9))),
    }
)
DTYPES = {
    "image": np.uint8,
    "pair/0": np.int64,
    "pair/1": np.int8,
    "pos/cell_id": np.int64,
    "pos/x": np.float32,
}


def leaves_at(index, episode, t):
    """What every leaf shows of an env's episode after `t` steps, by path."""
    return {
        "image": np.full((3, 4), (10 * index + 3 * episode + t) % 256, np.uint8),
        "pair/0": np.array([episode % 7, t]),
        "pair/1": np.array([t >> bit & 1 for bit in range(9)], np.int8),
        "pos/cell_id": np.int64(5 + t),
        "pos/x": np.array([1000 * index + episode, t / 64], np.float32),
    }


class TreeEnv(CountingEnv):
    """A CountingEnv that shows the same in a tree; `spoil` may change what a step returns."""

    observation_space = SPACE
    action_space = gym.spaces.Discrete(NUM_ACTIONS)

    def __init__(self, index, lengths, spoil=lambda t, observation: observation):
        super().__init__(index, lengths)
        self.observation_space, self.spoil, self.num_steps = SPACE, spoil, 0

    def _observation(self):
        leaves = leaves_at(self.index, self.episode, self.t)
        observation = {
            "pos": {"x": leaves["pos/x"].astype(float), "cell.id": int(leaves["pos/cell_id"])},
            "image": leaves["image"],
            "pair": (leaves["pair/0"], leaves["pair/1"]),
        }
        self.num_steps += 1
        return self.spoil(self.num_steps, observation)
