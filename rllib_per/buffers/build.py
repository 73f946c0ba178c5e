# SPDX-License-Identifier: MIT
"""From `replay_buffer_config` to a replay buffer."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from rllib_per.arrays import Allocator
from rllib_per.buffers.protocol import ReplayBuffer
from rllib_per.buffers.rllib_replay import RLlibReplay
from rllib_per.buffers.types import SETTINGS, replay_class
from rllib_per.replay import PrioritizedReplayBuffer, RowSpec
from rllib_per.sharding import ReplayShards

Replay = PrioritizedReplayBuffer | ReplayShards | RLlibReplay | ReplayBuffer


def build_replay(config: Any, rows: RowSpec, allocator: Allocator | None = None) -> ReplayBuffer:
    """The buffer that `config.replay_buffer_config` names, in this process.

    Args:
        allocator: Makes the arrays of batches, where the buffer is one of ours.
    """
    kind = replay_class(config.replay_buffer_config["type"])
    if not issubclass(kind, EpisodeReplayBuffer):
        settings = buffer_settings(config, rows)
        if issubclass(kind, PrioritizedReplayBuffer):
            settings["allocator"] = allocator
        buffer: ReplayBuffer = kind(**settings)
        return buffer
    options = {k: v for k, v in config.replay_buffer_config.items() if k not in ("type", "beta")}
    settings = _algorithms_settings(config)
    return RLlibReplay(partial(kind, **options), rows, **settings)


def buffer_settings(config: Any, rows: RowSpec) -> dict[str, Any]:
    """Keyword arguments of the buffer that `config` names, for rows of the given kind."""
    kind = replay_class(config.replay_buffer_config["type"])
    given = {k: v for k, v in config.replay_buffer_config.items() if k not in ("type", "beta")}
    if issubclass(kind, PrioritizedReplayBuffer):
        # One set of options serves all of ours, so that they can be swapped by one word.
        accepted = inspect.signature(kind.__init__).parameters
        given = {name: value for name, value in given.items() if name in accepted}
    return given | {"rows": rows} | _algorithms_settings(config)


def _algorithms_settings(config: Any) -> dict[str, Any]:
    n_step = config.n_step
    values = {
        "n_step": tuple(n_step) if isinstance(n_step, (list, tuple)) else n_step,
        "gamma": config.gamma,
        "reward_clip": config.get_reward_clip(),
        "seed": config.seed,
    }
    assert values.keys() == SETTINGS
    return values
