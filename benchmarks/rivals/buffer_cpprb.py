# SPDX-License-Identifier: MIT
"""cpprb's prioritized buffer: plain, and with each frame once, which rules out its n > 1."""

import numpy as np
from cpprb import PrioritizedReplayBuffer

from benchmarks.experience import Kind, episodes


class Cpprb:
    name = "cpprb, n = 3"

    def __init__(self, kind: Kind, num_steps: int) -> None:
        self.kind = kind
        self.buffer = self.make(kind, num_steps)
        for episode in episodes(kind, num_steps):
            obs = self.observations(episode)
            self.buffer.add(
                obs=obs[:-1],
                next_obs=obs[1:],
                act=episode.actions,
                rew=episode.rewards,
                done=episode.terminated(),
            )
            self.buffer.on_episode_end()

    def make(self, kind: Kind, num_steps: int):
        obs = {"shape": kind.obs_shape, "dtype": kind.dtype}
        return PrioritizedReplayBuffer(
            num_steps,
            {"obs": obs, "next_obs": obs, "act": {"dtype": np.int64}, "rew": {}, "done": {}},
            Nstep={"size": 3, "gamma": 0.99, "rew": "rew", "next": "next_obs"},
            alpha=0.6,
        )

    def observations(self, episode) -> np.ndarray:
        return episode.observations(self.kind)

    def sample(self, batch_size: int):
        return self.buffer.sample(batch_size, 0.4)

    def update(self, batch, td_errors) -> None:
        self.buffer.update_priorities(batch["indexes"], np.abs(td_errors))


class CpprbCompressed(Cpprb):
    name = "cpprb, stack_compress, n = 1"

    def make(self, kind: Kind, num_steps: int):
        # It wants the stack as the last axis, and finds next_obs in the next row's obs.
        shape = kind.frame_shape if kind.stack is None else (*kind.frame_shape, kind.stack)
        return PrioritizedReplayBuffer(
            num_steps,
            {
                "obs": {"shape": shape, "dtype": kind.dtype},
                "act": {"dtype": np.int64}, "rew": {}, "done": {},
            },
            next_of="obs",
            stack_compress="obs" if kind.stack else None,
            alpha=0.6,
        )  # fmt: skip

    def observations(self, episode) -> np.ndarray:
        obs = episode.observations(self.kind)
        return obs if self.kind.stack is None else np.moveaxis(obs, 1, -1)


BUFFERS = (Cpprb, CpprbCompressed)
