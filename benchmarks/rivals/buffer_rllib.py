# SPDX-License-Identifier: MIT
"""RLlib's prioritized buffer of episodes, whose samples are put together as its learner does it."""

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers import PrioritizedEpisodeReplayBuffer

from benchmarks.experience import Kind, episodes


class RLlib:
    """Pixels are float32, as RLlib's own Atari wrappers give them."""

    name = "RLlib, n = 3"
    dtype = "float32"

    def __init__(self, kind: Kind, num_steps: int) -> None:
        self.buffer = PrioritizedEpisodeReplayBuffer(capacity=num_steps, alpha=0.6)
        for episode in episodes(kind, num_steps):
            self.buffer.add(
                SingleAgentEpisode(
                    observations=list(episode.observations(kind).astype(self.dtype)),
                    actions=list(episode.actions),
                    rewards=list(episode.rewards),
                    terminated=True,
                    len_lookback_buffer=0,
                ).to_numpy()
            )

    def sample(self, batch_size: int):
        sampled = self.buffer.sample(num_items=batch_size, n_step=3, gamma=0.99, beta=0.4)
        obs = np.stack([episode.get_observations(0) for episode in sampled])
        next_obs = np.stack([episode.get_observations(-1) for episode in sampled])
        return obs, next_obs

    def update(self, batch, td_errors) -> None:
        self.buffer.update_priorities(abs(td_errors))


class RLlibBytes(RLlib):
    """With wrappers of one's own."""

    name = "RLlib, pixels as bytes, n = 3"
    pixels_only = True
    dtype = "uint8"


BUFFERS = (RLlib, RLlibBytes)
