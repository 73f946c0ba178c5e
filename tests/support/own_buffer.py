# SPDX-License-Identifier: MIT
"""A user's own replay buffer: the newest transitions, over and over."""

import numpy as np

from rllib_per.replay import UniformReplayBuffer


class NewestBuffer:
    """Has the methods that ApexDQN needs, and no state."""

    def __init__(self, capacity, rows, *, n_step, gamma, reward_clip, seed, newest=64):
        assert newest > 0
        self._inner = UniformReplayBuffer(
            capacity, rows, n_step=n_step, gamma=gamma, reward_clip=reward_clip, seed=seed
        )
        self._newest = newest
        self.num_answers = 0

    def add(self, fragment):
        return self._inner.add(fragment)

    def sample(self, batch_size, beta):
        span = min(1.0, self._newest / len(self._inner))
        return self._inner.draw(1.0 - span * (1.0 - np.arange(batch_size) / batch_size), beta)

    def update_priorities(self, ids, td_errors):
        self.num_answers += len(ids)

    def metrics(self):
        return {"num_answers_lifetime": float(self.num_answers)}

    def __len__(self):
        return len(self._inner)
