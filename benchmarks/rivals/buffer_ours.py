# SPDX-License-Identifier: MIT
"""Our prioritized buffer: frames once, n = 3."""

from benchmarks.experience import Kind, episodes, fragment, row_spec
from rllib_per.replay import PrioritizedReplayBuffer


class Ours:
    name = "rllib_per, n = 3"

    def __init__(self, kind: Kind, num_steps: int) -> None:
        self.buffer = PrioritizedReplayBuffer(
            num_steps * 202 // 200, row_spec(kind), n_step=3, seed=0
        )
        step = 0
        for episode in episodes(kind, num_steps):
            self.buffer.add(fragment(episode, step))
            step += len(episode.actions) + 1

    def sample(self, batch_size: int):
        return self.buffer.sample(batch_size, 0.4)

    def update(self, batch, td_errors) -> None:
        self.buffer.update_priorities(batch.ids, td_errors)


BUFFERS = (Ours,)
