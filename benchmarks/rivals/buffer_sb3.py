# SPDX-License-Identifier: MIT
"""stable-baselines3's buffer: uniform, with each observation once; it has no prioritized one."""

import numpy as np
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.buffers import ReplayBuffer

from benchmarks.experience import Kind, episodes


class StableBaselines3:
    name = "stable-baselines3, uniform, n = 1"

    def __init__(self, kind: Kind, num_steps: int) -> None:
        self.buffer = ReplayBuffer(
            num_steps,
            Box(0, 255, kind.obs_shape, np.dtype(kind.dtype).type),
            Discrete(4),
            device="cpu",
            optimize_memory_usage=True,
            handle_timeout_termination=False,
        )
        for episode in episodes(kind, num_steps):
            obs, ends = episode.observations(kind), episode.terminated()
            for t, action in enumerate(episode.actions):
                self.buffer.add(
                    obs[t : t + 1],
                    obs[t + 1 : t + 2],
                    action[None],
                    episode.rewards[t : t + 1],
                    ends[t : t + 1],
                    [{}],
                )

    def sample(self, batch_size: int):
        return self.buffer.sample(batch_size)

    def update(self, batch, td_errors) -> None:
        """It has no priorities."""


BUFFERS = (StableBaselines3,)
