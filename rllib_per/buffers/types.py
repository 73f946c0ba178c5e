# SPDX-License-Identifier: MIT
"""Which replay buffers `replay_buffer_config["type"]` can name, and which options each takes."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.multi_agent_episode_buffer import MultiAgentEpisodeReplayBuffer
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer

from rllib_per.buffers.protocol import METHODS, STATE_METHODS
from rllib_per.did_you_mean import did_you_mean
from rllib_per.replay import PrioritizedReplayBuffer, UniformReplayBuffer
from rllib_per.settings.replay import RLLIB_NAMES, Prioritized, TransitionSettings
from rllib_per.settings.section import names_of

REPLAY_TYPES: dict[str, type] = {
    "prioritized": PrioritizedReplayBuffer,
    "uniform": UniformReplayBuffer,
    "sharded": PrioritizedReplayBuffer,
    "rllib_prioritized": PrioritizedEpisodeReplayBuffer,
    "rllib_uniform": EpisodeReplayBuffer,
}
REPLAY_TYPES |= {name: REPLAY_TYPES[ours] for name, ours in RLLIB_NAMES.items()}

# What the algorithm's own settings, and not `replay_buffer_config`, decide.
DECIDED_ELSEWHERE = frozenset(names_of(TransitionSettings)) | {"rows", "allocator"}

# RLlib's algorithms never use these; its buffers take, and ignore, any other keyword.
_IGNORED_BY_RLLIB = frozenset({"batch_size_B", "batch_length_T", "kwargs"})


def replay_class(kind: Any) -> type:
    """The class of a buffer by its name, its dotted path, or as it is.

    Raises:
        ValueError: There is no such class, or it can't be a replay buffer here.
    """
    if isinstance(kind, str) and kind in REPLAY_TYPES:
        return REPLAY_TYPES[kind]
    found = _import(kind) if isinstance(kind, str) and "." in kind else kind
    if not isinstance(found, type):
        hint = did_you_mean(kind, REPLAY_TYPES)
        raise ValueError(
            f"must be one of {', '.join(map(repr, REPLAY_TYPES))}, a class, or the dotted path of "
            f"one: got {kind!r}{hint}"
        )
    _check_class(found)
    return found


def replay_options(kind: type) -> frozenset[str] | None:
    """The keys that `replay_buffer_config` may have beside `type`; None: any.

    `beta` belongs to the driver, which owns the schedules, but users look for it here.
    """
    if issubclass(kind, EpisodeReplayBuffer):
        bases = [base for base in kind.__mro__ if issubclass(base, EpisodeReplayBuffer)]
        names = {name for base in bases for name in inspect.signature(base).parameters}
        # As with our uniform buffer, whose options are those of the prioritized one.
        unused = {"alpha"} if kind is EpisodeReplayBuffer else set()
        return (frozenset(names) - _IGNORED_BY_RLLIB) | {"beta"} | unused
    if issubclass(kind, PrioritizedReplayBuffer):
        return frozenset(names_of(Prioritized)) - {"type"}
    parameters = inspect.signature(kind).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return (frozenset(parameters) - DECIDED_ELSEWHERE) | {"beta"}


def can_be_saved(kind: type) -> bool:
    """Whether checkpoints can hold a buffer of this class."""
    if issubclass(kind, EpisodeReplayBuffer):
        return kind in REPLAY_TYPES.values()  # What a subclass has besides, nobody knows.
    return all(hasattr(kind, method) for method in STATE_METHODS)


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path!r} can't be imported: {error}") from error


def _check_class(kind: type) -> None:
    if issubclass(kind, MultiAgentEpisodeReplayBuffer):
        raise ValueError(
            f"{kind.__name__} keeps multi-agent episodes, and ApexDQN has one agent: use "
            "'rllib_prioritized' or 'rllib_uniform'"
        )
    if kind.__module__.startswith("rllib_per.drop_in"):
        raise ValueError(
            f"{kind.__name__} is for RLlib's own algorithms; here 'prioritized' is the same "
            "without the episodes"
        )
    missing = [method for method in METHODS if not hasattr(kind, method)]
    if not issubclass(kind, EpisodeReplayBuffer) and missing:
        raise ValueError(
            f"a replay buffer must be an EpisodeReplayBuffer of RLlib's or have the methods of "
            f"rllib_per.buffers.protocol.ReplayBuffer: {kind.__name__} has no "
            f"{', '.join(missing)}"
        )
