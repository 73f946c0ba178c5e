# SPDX-License-Identifier: MIT
"""From `replay_buffer_config` to a replay buffer."""

from __future__ import annotations

import inspect
from typing import Any

from rllib_per.replay import PrioritizedReplayBuffer, RowSpec, UniformReplayBuffer
from rllib_per.sharding import ReplayShards

Replay = PrioritizedReplayBuffer | UniformReplayBuffer | ReplayShards

# RLlib's own names stand for the buffer of ours that does the same.
REPLAY_TYPES: dict[str, type[PrioritizedReplayBuffer] | type[UniformReplayBuffer]] = {
    "prioritized": PrioritizedReplayBuffer,
    "uniform": UniformReplayBuffer,
    "sharded": PrioritizedReplayBuffer,
    "PrioritizedEpisodeReplayBuffer": PrioritizedReplayBuffer,
    "EpisodeReplayBuffer": UniformReplayBuffer,
}

# What the algorithm's own settings, and not `replay_buffer_config`, decide.
_DECIDED_ELSEWHERE = {"self", "rows", "n_step", "gamma", "reward_clip", "seed", "allocator"}

# `beta` belongs to the driver, which owns the schedules, but users look for it here.
REPLAY_OPTIONS = frozenset(
    inspect.signature(PrioritizedReplayBuffer.__init__).parameters
).difference(_DECIDED_ELSEWHERE) | {"beta"}


def build_replay(config: Any, rows: RowSpec) -> PrioritizedReplayBuffer | UniformReplayBuffer:
    """The buffer that `config.replay_buffer_config` names, in this process."""
    buffer_class = REPLAY_TYPES[config.replay_buffer_config["type"]]
    return buffer_class(**buffer_settings(config, rows))


def buffer_settings(config: Any, rows: RowSpec) -> dict[str, Any]:
    """Keyword arguments of the buffer that `config` names, for rows of the given kind."""
    buffer_class = REPLAY_TYPES[config.replay_buffer_config["type"]]
    accepted = inspect.signature(buffer_class.__init__).parameters
    n_step = config.n_step
    given = {name: v for name, v in config.replay_buffer_config.items() if name in accepted}
    return given | {
        "rows": rows,
        "n_step": tuple(n_step) if isinstance(n_step, (list, tuple)) else n_step,
        "gamma": config.gamma,
        "reward_clip": config.get_reward_clip(),
        "seed": config.seed,
    }
