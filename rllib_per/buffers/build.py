# SPDX-License-Identifier: MIT
"""From settings to a replay buffer."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from rllib_per.arrays import Allocator
from rllib_per.buffers.protocol import ReplayBuffer
from rllib_per.buffers.rllib_replay import RLlibReplay
from rllib_per.buffers.types import DECIDED_ELSEWHERE, replay_class
from rllib_per.replay import PrioritizedReplayBuffer, RowSpec
from rllib_per.seeds import REPLAY, stream_seed
from rllib_per.settings.replay import AnyReplay, TransitionSettings, replay_buffer_config
from rllib_per.sharding import ShardedReplay

AnyReplayBuffer = PrioritizedReplayBuffer | ShardedReplay | RLlibReplay | ReplayBuffer


def build_replay(
    replay: AnyReplay,
    transitions: TransitionSettings,
    rows: RowSpec,
    allocator: Allocator | None = None,
) -> ReplayBuffer:
    """The buffer with these settings, in this process.

    Args:
        allocator: Makes the arrays of batches, where the buffer is one of ours.
    """
    kind = replay_class(replay.type)
    keywords = buffer_keywords(replay, transitions, rows)
    if issubclass(kind, PrioritizedReplayBuffer):
        keywords["allocator"] = allocator
    if not issubclass(kind, EpisodeReplayBuffer):
        buffer: ReplayBuffer = kind(**keywords)
        return buffer
    own = {name: value for name, value in keywords.items() if name not in DECIDED_ELSEWHERE}
    elsewhere = {name: value for name, value in keywords.items() if name in DECIDED_ELSEWHERE}
    return RLlibReplay(partial(kind, **own), **elsewhere)


def buffer_keywords(
    replay: AnyReplay, transitions: TransitionSettings, rows: RowSpec
) -> dict[str, Any]:
    """Keyword arguments of the buffer with these settings, for rows of the given kind."""
    kind = replay_class(replay.type)
    given = replay_buffer_config(replay)
    del given["type"], given["beta"]
    if issubclass(kind, PrioritizedReplayBuffer):
        # One set of options serves all of ours, so that they can be swapped by one word.
        accepted = _keywords(kind)
        given = {name: value for name, value in given.items() if name in accepted}
    seed = stream_seed(transitions.seed, REPLAY)
    return given | vars(transitions) | {"seed": seed, "rows": rows}


def _keywords(kind: type[PrioritizedReplayBuffer]) -> set[str]:
    """What it can be made with: `**kwargs` of a class of one's own stand for those of its base."""
    found: set[str] = set()
    for each in inspect.getmro(kind):
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each).parameters.values()
        found |= {parameter.name for parameter in parameters}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found
