# SPDX-License-Identifier: MIT
"""The prioritized replay buffer for RLlib's own algorithms, by one line of their config."""

from rllib_per.drop_in.episode_buffer import FastPrioritizedEpisodeReplayBuffer

__all__ = ["FastPrioritizedEpisodeReplayBuffer"]
