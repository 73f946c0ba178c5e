# SPDX-License-Identifier: MIT
"""RLlib's SAC, which otherwise takes buffers of four names only."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms import sac
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer
from ray.rllib.utils.serialization import deserialize_type


class SACConfig(sac.SACConfig):
    """Takes any subclass of PrioritizedEpisodeReplayBuffer, by class or dotted path."""

    replay_buffer_config: dict[str, Any]

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SAC)

    def validate(self) -> None:
        """As RLlib's; a buffer that is a prioritized one is checked as RLlib's own."""
        chosen = self.replay_buffer_config
        buffer_class = deserialize_type(chosen["type"])
        if not (
            isinstance(buffer_class, type)
            and issubclass(buffer_class, PrioritizedEpisodeReplayBuffer)
        ):
            super().validate()
            return
        self.replay_buffer_config = {**chosen, "type": PrioritizedEpisodeReplayBuffer.__name__}
        try:
            super().validate()
        finally:
            self.replay_buffer_config = chosen


class SAC(sac.SAC):
    """RLlib's SAC with the SACConfig of this module, for Tune and for checkpoints."""

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig:
        return SACConfig()
