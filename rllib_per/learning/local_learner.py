# SPDX-License-Identifier: MIT
"""A learner in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError

from rllib_per.arrays import Allocator
from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.learning.learners import Learners, Update, joined
from rllib_per.replay import PriorityUpdate, TransitionBatch
from rllib_per.settings.training import Training
from rllib_per.sharding import BatchPart


class LocalLearner(Learners):
    """RLlib's local learner, which has taken a step when the call returns.

    Args:
        learner: It.
        timeout_s: How long the rows of a batch may take to come.
        training: Of the experiment.
    """

    num_parts = 1
    num_restarts = 0

    def __init__(self, learner: ApexDQNLearner, timeout_s: float, training: Training) -> None:
        super().__init__(training)
        self._learner, self._timeout_s = learner, timeout_s
        self._weights: ray.ObjectRef | None = None

    @property
    def batch_allocator(self) -> Allocator | None:
        return self._learner.batch_allocator

    def update(
        self, batch: TransitionBatch, *, timesteps: dict[str, int], lr: float
    ) -> PriorityUpdate | None:
        return self._learner.update_from_replay(batch, timesteps=timesteps, lr=lr)

    def start_update(
        self, parts: Sequence[BatchPart], *, timesteps: dict[str, int], lr: float
    ) -> Update:
        (part,) = parts
        blocks = self._fetch(part.blocks)
        if blocks is None:
            return Update(())
        answer = self._learner.update_from_blocks(
            part.factors,
            part.limit,
            *blocks,
            asked_at=part.asked_at,
            timesteps=timesteps,
            lr=lr,
        )
        return Update([answer])

    def _fetch(self, blocks: Sequence[ray.ObjectRef]) -> list[TransitionBatch] | None:
        """The rows of a batch; None if they went down with their node."""
        try:
            return ray.get(list(blocks), timeout=self._timeout_s)
        except GetTimeoutError:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for the rows of a batch from replay; a process is "
                "overloaded or hangs: look at them, or raise learner_timeout_s"
            ) from None
        except ObjectLostError:
            self.num_updates_lost_lifetime += 1
            return None

    def is_done(self, update: Update) -> bool:
        return True

    def finish(self, update: Update) -> PriorityUpdate | None:
        return joined(update.answers)

    def flush(self) -> PriorityUpdate | None:
        return self._learner.flush()

    @property
    def weights(self) -> ray.ObjectRef:
        if self._weights is None:
            self._weights = ray.put(self.read_weights())
        return self._weights

    def ask_for_weights(self, *, wait: bool = False) -> None:
        self._weights = None  # They are handed out when someone wants them, and not before.

    def remember_weights(self) -> None:
        """Nothing: it lives as long as this process."""

    def read_weights(self) -> dict[str, Any]:
        return dict(self._learner.export_weights()[1])

    def read_shapes(self) -> dict[str, tuple[int, ...]]:
        return self._learner.weight_shapes()

    def _pop_results(self) -> list[dict[str, Any]]:
        return [self._learner.pop_metrics()]
