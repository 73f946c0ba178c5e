# SPDX-License-Identifier: MIT
"""How far training is, and what the schedules say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rllib_per.schedules import Schedule, schedule


@dataclass
class Progress:
    """How far training is; schedules and the target network go by it."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0

    def load(self, state: dict[str, int]) -> None:
        """Go on where `state` was."""
        self.env_steps = state["env_steps"]
        self.episodes = state["episodes"]
        self.updates = state["updates"]


@dataclass
class Schedules:
    """What changes with env steps; the driver owns all of it."""

    epsilon: Schedule
    beta: Schedule
    lr: Schedule

    @classmethod
    def of(cls, config: Any) -> Schedules:
        """Those of an ApexDQNConfig."""
        return cls(
            epsilon=schedule(config.epsilon if config.explore else 0.0),
            beta=schedule(config.replay_buffer_config.get("beta", 0.4)),
            lr=schedule(config.lr),
        )

    def follow(self, config: Any) -> None:
        """Go by another ApexDQNConfig from now on."""
        new = self.of(config)
        self.epsilon, self.beta, self.lr = new.epsilon, new.beta, new.lr
