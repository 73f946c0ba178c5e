# SPDX-License-Identifier: MIT
"""Prioritized experience replay and Ape-X dueling double DQN for Ray RLlib's new API stack."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rllib_per.registration import register

if TYPE_CHECKING:
    from rllib_per.dqn.algorithm import ApexDQN
    from rllib_per.dqn.config import ApexDQNConfig
    from rllib_per.drop_in import FastPrioritizedEpisodeReplayBuffer
    from rllib_per.replay import (
        Fragment,
        PrioritizedReplayBuffer,
        RowSpec,
        TransitionBatch,
        UniformReplayBuffer,
    )

__all__ = [
    "ApexDQN",
    "ApexDQNConfig",
    "FastPrioritizedEpisodeReplayBuffer",
    "Fragment",
    "PrioritizedReplayBuffer",
    "RowSpec",
    "TransitionBatch",
    "UniformReplayBuffer",
]

# Resolved on first use (PEP 562), so that `import rllib_per.replay` never imports Ray.
_HOMES = {
    "ApexDQN": "rllib_per.dqn.algorithm",
    "ApexDQNConfig": "rllib_per.dqn.config",
    "FastPrioritizedEpisodeReplayBuffer": "rllib_per.drop_in",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "rllib_per.replay")), name)


# `tune.Tuner("ApexDQN")` finds the algorithm from now on; Ray itself is not imported for that.
register()
