# SPDX-License-Identifier: MIT
"""What is remembered and how it is drawn: one class for each type of replay buffer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from rllib_per.settings.rules import (
    Bound,
    Count,
    NameOrClass,
    NotNegative,
    Positive,
    PositiveFloat,
    RelationError,
    Share,
    Steps,
    Unit,
    UnitSchedule,
)
from rllib_per.settings.section import Section, as_dict, names_of

logger = logging.getLogger(__name__)

MAX_SHARDS = 256  # Of an id, 8 bits are the shard's number.

# Distances between rows are 32 bits wide.
Capacity = Annotated[int, Bound(1, 2**31, is_integer=True)]
Alpha = Annotated[float, Bound(0, 4)]


@dataclass(frozen=True)
class TransitionSettings(Section):
    """What of the algorithm's settings decides what replay makes of rows."""

    n_step: Annotated[Any, Steps()] = 1
    """Steps of a window, or an inclusive range."""
    gamma: Unit = 0.99
    """Discount γ."""
    reward_clip: PositiveFloat | None = None
    """Rewards are clipped to ± this; None: as they come."""
    seed: Count | None = None
    """Seed of the draws."""


@dataclass(frozen=True)
class ReplaySettings(Section):
    """What is remembered, and what of it is learned from."""

    type: Any = "prioritized"
    """"prioritized", "uniform", "sharded" (prioritized, in actors that env runner actors feed while
    learners learn), RLlib's own as "rllib_prioritized" and "rllib_uniform", or behind
    --allow-custom-classes `module.Class` or `file.py:Class`, a path from this file
    (rllib_per.buffers.protocol)."""
    capacity: Capacity = 50_000
    """Rows; an episode of L steps takes L + 1."""


@dataclass(frozen=True)
class Exponents(Section):
    """Of prioritized replay."""

    alpha: Alpha = 0.6
    """α: how much priorities matter; 0 draws uniformly."""
    beta: UnitSchedule = 0.4
    """β, the exponent of the importance weights; 1 corrects the draw in full."""


@dataclass(frozen=True)
class Priorities(Section):
    """From TD errors to draws and their weights."""

    priority_epsilon: Annotated[float, Bound(0, 1e6)] = 1e-6
    """ε, added to every priority, so that a TD error of 0 can still be drawn; with 0 it can not."""
    priority: Literal["absolute", "huber", "clipped"] = "absolute"
    """From δ, which `training.priority` says: |δ| + ε, Huber of δ, + ε, or |δ| + ε and at most
    `priority_clip`."""
    priority_clip: PositiveFloat = 1.0
    """Bound of priorities that are "clipped"."""
    max_priority_decay: Share = 1.0
    """The maximum so far is multiplied by it at every update; 1 never forgets it."""
    weight_normalization: Literal["buffer", "batch"] | None = "batch"
    """Importance weights are scaled by the largest possible in the buffer, in the batch, or not."""
    stratified: bool = True
    """One draw from each of B equal shares of the mass, or B independent ones."""
    gather_threads: Positive = 1
    """Threads that copy frames into a batch."""


@dataclass(frozen=True)
class Prioritized(Priorities, Exponents, ReplaySettings):
    """What is remembered, and what of it is learned from."""

    type: Literal["prioritized"] = "prioritized"
    prioritization: Literal["proportional", "rank"] = "proportional"
    """mass = priority^α, or rank^-α (Schaul et al. 2016, §3.3), which shards can't have."""
    initial_priority: Literal["max", "td_error", "given"] = "max"
    """Priority of a new transition: the maximum so far, its own n-step TD error, or the extra
    column `priority` of an env runner class of your own, which only Python can name."""

    @property
    def records_q(self) -> bool:
        """Whether env runners must bring the Q-values of what they play."""
        return self.initial_priority == "td_error"


@dataclass(frozen=True)
class Uniform(Prioritized):
    """The same buffer with equal masses; priorities change no draw, and a warning says so."""

    type: Literal["uniform"] = "uniform"  # type: ignore[assignment]


@dataclass(frozen=True)
class ShardLimits(Section):
    """How much may be under way between replay shards and their clients, and how long to wait."""

    max_requests_in_flight: Positive = 8
    """Batches asked for ahead of the learners."""
    max_bytes_in_flight: Positive = 256_000_000
    """Bytes of batches asked for ahead of the learners, and of each env runner's fragments on their
    way. One batch or fragment may exceed it, but only by itself."""
    max_calls_in_flight: Positive = 8
    """Unanswered calls from one process to one shard; at most 256, as a shard remembers no more."""
    priority_flush_updates: Positive = 8
    """Updates whose TD errors are collected before they are sent."""
    priority_flush_s: NotNegative = 0.1
    """Seconds after which TD errors are sent, however few they are."""
    max_mass_staleness_s: NotNegative = 1.0
    """Masses older than this are asked for again before a draw."""
    shard_timeout_s: NotNegative = 60.0
    """Seconds that a shard may take to answer before training ends in an error; one whose calls
    fail is left out of draws instead."""
    shard_probe_s: NotNegative = 0.2
    """Seconds between two questions whether a lost shard is back."""


@dataclass(frozen=True)
class Sharded(ShardLimits, Prioritized):
    """The same buffer in actors, which share the capacity."""

    type: Literal["sharded"] = "sharded"  # type: ignore[assignment]
    num_shards: Annotated[int, Bound(1, MAX_SHARDS, is_integer=True)] = 1
    """Actors that share the capacity."""
    shard_num_cpus: NotNegative = 1.0
    """CPUs that each actor reserves."""
    shard_memory_bytes: Count = 0
    """Memory that each actor reserves."""
    shard_placement: Literal["anywhere", "spread", "node"] = "anywhere"
    """Where shards are: wherever there is room, over the nodes, or on the driver's; a Tune trial
    places them itself."""
    shard_recovery: Literal["empty", "checkpoint"] = "empty"
    """How a shard begins that lost its content: its part of the newest checkpoint, or empty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prioritization == "rank":
            raise RelationError("prioritization", RANK_IN_SHARDS)


RANK_IN_SHARDS = (
    "prioritization: rank can't be had with type: sharded, as a rank is one among all transitions; "
    "use type: prioritized, or prioritization: proportional"
)


@dataclass(frozen=True)
class RLlibPrioritized(Exponents, ReplaySettings):
    """RLlib's PrioritizedEpisodeReplayBuffer, for comparison."""

    type: Literal["rllib_prioritized"] = "rllib_prioritized"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of the class."""


@dataclass(frozen=True)
class RLlibUniform(Exponents, ReplaySettings):
    """RLlib's EpisodeReplayBuffer, for comparison; `alpha` is taken and changes nothing."""

    type: Literal["rllib_uniform"] = "rllib_uniform"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of the class."""


REPLAY_NAMES = ("prioritized", "uniform", "sharded", "rllib_prioritized", "rllib_uniform")


@dataclass(frozen=True)
class OwnBuffer(ReplaySettings):
    """A class of your own (rllib_per.buffers.protocol)."""

    type: Annotated[Any, NameOrClass(REPLAY_NAMES)] = None
    beta: UnitSchedule = Exponents.beta
    """Exponent of the importance weights, which the driver gives to `sample`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further keywords of the class."""


# What decides on priorities, or on what follows from them.
OF_PRIORITIES = {*names_of(Exponents), *names_of(Priorities), "prioritization", "initial_priority"}
OF_PRIORITIES -= {"stratified", "gather_threads"}

AnyReplay = Prioritized | Uniform | Sharded | RLlibPrioritized | RLlibUniform | OwnBuffer

REPLAY_SECTIONS: dict[str, type[AnyReplay]] = {
    "prioritized": Prioritized,
    "uniform": Uniform,
    "sharded": Sharded,
    "rllib_prioritized": RLlibPrioritized,
    "rllib_uniform": RLlibUniform,
}
# RLlib's own names stand for the buffer of ours that does the same.
RLLIB_NAMES = {"PrioritizedEpisodeReplayBuffer": "prioritized", "EpisodeReplayBuffer": "uniform"}


def section_of(kind: Any) -> type[AnyReplay]:
    """The class that has the settings of this type of replay buffer."""
    if not isinstance(kind, str):
        return OwnBuffer
    return REPLAY_SECTIONS.get(RLLIB_NAMES.get(kind, kind), OwnBuffer)


def replay_of(replay_buffer_config: Mapping[str, Any]) -> AnyReplay:
    """The settings in RLlib's `replay_buffer_config`.

    Raises:
        ValueError, TypeError: A key is none of this type of buffer, or a value none of its key.
    """
    given = with_new_names(replay_buffer_config)
    section = section_of(given.pop("type", Prioritized.type))
    names = [name for name in names_of(section) if name != "options"]
    known = {name: given.pop(name) for name in names if name in given}
    if issubclass(section, RLlibPrioritized | RLlibUniform | OwnBuffer):
        known["options"] = given
    elif given:
        raise ValueError(
            f"{', '.join(given)} can't be set with type: {section.type}, which has "
            f"{', '.join(names[1:])}"
        )
    if section is OwnBuffer:
        known["type"] = replay_buffer_config["type"]
    return section(**known)


def draws_alike(kind: type[AnyReplay]) -> bool:
    """Whether this type draws all transitions alike, so that priorities change nothing."""
    return issubclass(kind, Uniform | RLlibUniform)


def without_effect(replay: AnyReplay, priority: str | None) -> list[str]:
    """What was changed of priorities, as YAML names it, where all transitions are drawn alike.

    Args:
        priority: Of `training`; None: it was not given.
    """
    kind = type(replay)
    if not draws_alike(kind):
        return []
    names = [name for name in names_of(kind) if name in OF_PRIORITIES]
    changed = [name for name in names if getattr(replay, name) != getattr(kind, name)]
    return [f"replay.{name}" for name in changed] + ["training.priority"] * (priority is not None)


def replay_buffer_config(replay: AnyReplay) -> dict[str, Any]:
    """The same settings as RLlib takes them."""
    values = as_dict(replay)
    options: dict[str, Any] = values.pop("options", {})
    return values | options


# Settings that had another name once; configurations, runs and checkpoints may still have it.
RENAMED = {"max_picture_age_s": "max_mass_staleness_s"}
OLD_NAMES = {new: old for old, new in RENAMED.items()}


def with_new_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings under the names that they have now, with a warning for each old name.

    Where a setting is given under both names, the value under the new one counts.
    """
    renamed = dict(settings)
    for old, new in RENAMED.items():
        if old in renamed:
            logger.warning("the setting %s is called %s now: rename it", old, new)
            value = renamed.pop(old)
            renamed.setdefault(new, value)
    return renamed
