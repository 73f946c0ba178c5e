# SPDX-License-Identifier: MIT
"""What ApexDQN asks of a replay buffer in its process, be it ours, RLlib's, or a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rllib_per.arrays import Array, Int64s
from rllib_per.replay import Fragment, TransitionBatch


class ReplayBuffer(Protocol):
    """A class of your own has these methods, and a constructor that takes keywords.

    It is called with `capacity`, `rows` (a RowSpec), `n_step` (an integer or a pair), `gamma`,
    `reward_clip`, `seed`, and all further keys of `replay_buffer_config` but `type` and `beta`.
    What is about state is needed only where checkpoints are to hold the buffer.

    A buffer that must have the TD errors of a batch before anything else is added or drawn says so
    by `one_batch_in_flight = True`.
    """

    def add(self, fragment: Fragment) -> int:
        """Write a fragment; how many transitions it made."""

    def sample(self, batch_size: int, beta: float) -> TransitionBatch:
        """Draw transitions, with importance weights for the exponent `beta`."""

    def update_priorities(self, ids: Int64s, td_errors: Array) -> None:
        """Take the TD errors, signed, of the transitions with these ids, in any order."""

    def metrics(self) -> dict[str, float]:
        """Figures of now by name; they appear under `replay_buffer` in RLlib's results."""

    def __len__(self) -> int:
        """Transitions stored."""

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next: arrays, and values for JSON."""

    @property
    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of the state are arrays."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""


METHODS = ("add", "sample", "update_priorities", "metrics", "__len__")
STATE_METHODS = ("state", "state_arrays", "load_state")
