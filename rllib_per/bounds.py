# SPDX-License-Identifier: MIT
"""Which numbers a setting may have: one table for buffers, shards, ApexDQNConfig and drop-in.

The sections of an experiment have the same bounds as pydantic writes them; a test compares the two.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

logger = logging.getLogger(__name__)

_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Bound:
    """Numbers from `low` to `high`; never NaN, infinity, or a bool.

    Attributes:
        low, high: The least and the greatest.
        above: Whether `low` itself is refused.
        is_integer: Whether only integers are meant; 2.0 is none.
    """

    low: float
    high: float | None = None
    above: bool = False
    is_integer: bool = False

    def admits(self, value: Any) -> bool:
        """Whether the setting may have this value."""
        return self._is_of_kind(value) and self._is_within(value)

    def check(self, name: str, value: Any) -> None:
        """Raises TypeError for another kind of value, ValueError for a number out of range."""
        if not self._is_of_kind(value):
            raise TypeError(f"{name} must be {self}: got {value!r}")
        if not self._is_within(value):
            raise ValueError(f"{name} must be {self}: got {value!r}")

    def _is_of_kind(self, value: Any) -> bool:
        kind = Integral if self.is_integer else Real
        return isinstance(value, kind) and not isinstance(value, bool)

    def _is_within(self, value: Any) -> bool:
        high = self.high
        if high is None:
            high = value if self.is_integer else _LARGEST
        return (self.low < value if self.above else self.low <= value) and bool(value <= high)

    def __str__(self) -> str:
        kind = "an integer" if self.is_integer else "a number"
        if self.high is None:
            return f"{kind} {'>' if self.above else '>='} {self.low:g}"
        return f"{kind} in {'(' if self.above else '['}{_text(self.low)}, {_text(self.high)}]"


def _text(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


_UNIT = Bound(0, 1)
_SHARE = Bound(0, 1, above=True)
_POSITIVE = Bound(0, above=True)
_NOT_NEGATIVE = Bound(0)
_COUNT = Bound(0, is_integer=True)
_AT_LEAST_ONE = Bound(1, is_integer=True)

BOUNDS: dict[str, Bound] = {
    "alpha": Bound(0, 4),
    "beta": _UNIT,
    "priority_epsilon": Bound(0, 1e6),
    "priority_clip": _POSITIVE,
    "max_priority_decay": _SHARE,
    "reward_clip": _POSITIVE,
    "gamma": _UNIT,
    "capacity": Bound(1, 2**31, is_integer=True),  # Distances between rows are 32 bits wide.
    "gather_threads": _AT_LEAST_ONE,
    "batch_size": _AT_LEAST_ONE,
    "seed": _COUNT,
    "first_id": Bound(0, 2**63 - 2**40, is_integer=True),  # 2^40 rows may follow.
    # Learning.
    "train_batch_size_per_learner": _AT_LEAST_ONE,
    "tau": _SHARE,
    "target_network_update_freq": _AT_LEAST_ONE,
    "num_steps_sampled_before_learning_starts": _COUNT,
    "adam_epsilon": _POSITIVE,
    "grad_clip": _POSITIVE,
    "training_intensity": _POSITIVE,
    "replay_ratio": _POSITIVE,
    "broadcast_interval": _AT_LEAST_ONE,
    "num_learners": _COUNT,
    "num_gpus_per_learner": _NOT_NEGATIVE,
    "learner_timeout_s": _POSITIVE,
    "max_learner_restarts": _COUNT,
    # Env runners and reports.
    "num_env_runners": _COUNT,
    "num_envs_per_env_runner": _AT_LEAST_ONE,
    "frame_stack": _AT_LEAST_ONE,
    "max_env_steps_per_episode": _AT_LEAST_ONE,
    "min_sample_timesteps_per_iteration": _COUNT,
    "metrics_num_episodes_for_smoothing": _AT_LEAST_ONE,
    # Replay shards.
    "num_shards": Bound(1, 256, is_integer=True),
    "shard_num_cpus": _NOT_NEGATIVE,
    "shard_memory_bytes": _COUNT,
    "max_requests_in_flight": _AT_LEAST_ONE,
    "max_bytes_in_flight": _AT_LEAST_ONE,
    "max_calls_in_flight": _AT_LEAST_ONE,
    "priority_flush_updates": _AT_LEAST_ONE,
    "priority_flush_s": _NOT_NEGATIVE,
    "max_mass_staleness_s": _NOT_NEGATIVE,
    "shard_timeout_s": _NOT_NEGATIVE,
    "shard_probe_s": _NOT_NEGATIVE,
    # The drop-in buffer.
    "beta_final": _UNIT,
    "beta_steps": _AT_LEAST_ONE,
    "max_ongoing_episodes": _AT_LEAST_ONE,
    "batch_size_B": _AT_LEAST_ONE,
}


# What `make_activation` makes.
ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "swish", "linear")


def check_bounds(**values: Any) -> None:
    """Check settings by their names; raises TypeError or ValueError as `Bound.check` does."""
    for name, value in values.items():
        BOUNDS[name].check(name, value)


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
