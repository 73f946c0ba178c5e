# SPDX-License-Identifier: MIT
"""torchrl's buffers of TensorDicts in memory; n-step returns are made before them.

The prioritized one needs a compiled extension that fits the torch at hand; where it does not load,
the uniform one stands in, which has less to do.
"""

import importlib

import torch
from tensordict import TensorDict
from torchrl.data import (
    LazyTensorStorage,
    TensorDictPrioritizedReplayBuffer,
    TensorDictReplayBuffer,
)

from benchmarks.experience import Kind, episodes

try:
    importlib.import_module("torchrl._torchrl")
    PRIORITIZED = True
except ImportError:
    PRIORITIZED = False


class TorchRL:
    name = "torchrl, n = 1"

    def __init__(self, kind: Kind, num_steps: int) -> None:
        self.buffer = self.make(num_steps)
        for episode in episodes(kind, num_steps):
            obs = torch.from_numpy(episode.observations(kind))
            self.buffer.extend(
                TensorDict(
                    {
                        "obs": obs[:-1],
                        "next_obs": obs[1:],
                        "action": torch.from_numpy(episode.actions),
                        "reward": torch.from_numpy(episode.rewards),
                        "terminated": torch.from_numpy(episode.terminated()),
                    },
                    batch_size=[len(episode.actions)],
                )
            )

    def make(self, num_steps: int):
        return TensorDictPrioritizedReplayBuffer(
            alpha=0.6, beta=0.4, storage=LazyTensorStorage(num_steps)
        )

    def sample(self, batch_size: int):
        return self.buffer.sample(batch_size)

    def update(self, batch, td_errors) -> None:
        batch["td_error"] = torch.from_numpy(td_errors).abs()
        self.buffer.update_tensordict_priority(batch)


class UniformTorchRL(TorchRL):
    name = "torchrl, uniform, n = 1"

    def make(self, num_steps: int):
        return TensorDictReplayBuffer(storage=LazyTensorStorage(num_steps))

    def update(self, batch, td_errors) -> None:
        """It has no priorities."""


BUFFERS = (TorchRL if PRIORITIZED else UniformTorchRL,)
