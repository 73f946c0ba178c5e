# SPDX-License-Identifier: MIT
"""Learners in actors, in lock step on equal slices of a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_per.learning.learner_actors import LearnerActors, LearnersLostError
from rllib_per.learning.learners import Learners, Update, joined
from rllib_per.replay import PriorityUpdate, TransitionBatch
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.training import Training
from rllib_per.sharding import BatchPart

_TD_ERRORS = "the TD errors"


class RemoteLearners(Learners):
    """RLlib's remote learners.

    Those that die are started again (`LearnerActors`); what they had under way is lost.

    Args:
        group: RLlib's.
        rebuild: Makes another like it once its actors are gone.
        settings: Deadline and number of restarts.
        training: Of the experiment.
    """

    batch_allocator = None

    def __init__(
        self,
        group: LearnerGroup,
        rebuild: Callable[[], LearnerGroup],
        settings: LearnerSettings,
        training: Training,
    ) -> None:
        super().__init__(training)
        self._actors = LearnerActors(
            group, rebuild, settings.learner_timeout_s, settings.max_learner_restarts
        )
        self._num_updates = 0
        self._weights: ray.ObjectRef | None = None
        # For each request of weights: a reference that is ready with them, and one to the weights.
        self._asked: deque[tuple[ray.ObjectRef, ray.ObjectRef]] = deque()

    @property
    def num_parts(self) -> int:
        return len(self._actors)

    @property
    def num_restarts(self) -> int:
        return self._actors.num_restarts

    def update(
        self, batch: TransitionBatch, *, timesteps: dict[str, int], lr: float
    ) -> PriorityUpdate | None:
        """The same; learners that die meanwhile are started again, and take it then."""
        self._num_updates = timesteps["updates"]
        while True:
            answers = [
                learner.update_from_replay.remote(part, timesteps=timesteps, lr=lr)
                for learner, part in zip(self._actors, split(batch, len(self._actors)), strict=True)
            ]
            try:
                return joined(self._actors.get(answers, _TD_ERRORS))
            except LearnersLostError as error:
                self._restart(error)

    def start_update(
        self, parts: Sequence[BatchPart], *, timesteps: dict[str, int], lr: float
    ) -> Update:
        """The same.

        Steps are taken in the order of the calls, so that all learners are at the same step and
        their gradients belong together.
        """
        self._num_updates = timesteps["updates"] + 1
        answers = [
            learner.update_from_blocks.remote(
                part.factors,
                part.limit,
                *part.blocks,
                asked_at=part.asked_at,
                timesteps=timesteps,
                lr=lr,
            )
            for learner, part in zip(self._actors, parts, strict=True)
        ]
        return Update(answers, self.num_restarts)

    def is_done(self, update: Update) -> bool:
        return update.generation != self.num_restarts or self._actors.has_answered(update.answers)

    def finish(self, update: Update) -> PriorityUpdate | None:
        if update.generation == self.num_restarts:
            try:
                return joined(self._actors.get(update.answers, _TD_ERRORS))
            except LearnersLostError as error:
                self._restart(error)
        self.num_updates_lost_lifetime += 1
        return None

    def flush(self) -> PriorityUpdate | None:
        return joined(self._ask_all("flush", _TD_ERRORS))

    @property
    def weights(self) -> ray.ObjectRef:
        self._take_weights()
        assert self._weights is not None
        return self._weights

    def ask_for_weights(self, *, wait: bool = False) -> None:
        answered, weights = self._actors[0].export_weights.options(num_returns=2).remote()
        if not wait:
            self._asked.append((answered, weights))
            return
        self._asked.clear()
        self._actors.get([answered], "weights")
        self._weights = weights

    def remember_weights(self) -> None:
        self._take_weights()
        self.ask_for_weights()

    def read_weights(self) -> dict[str, Any]:
        _, weights = self._ask_one("export_weights", "weights")
        return dict(weights)

    def read_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._ask_one("weight_shapes", "the shapes of weights"))

    def _pop_results(self) -> list[dict[str, Any]]:
        return self._ask_all("pop_metrics", "metrics")

    def _take_weights(self) -> None:
        """Those that have come of what was asked for."""
        # A learner that is never idle has always been asked once more since.
        while self._asked and self._actors.has_answered(self._asked[0][:1]):
            answered, weights = self._asked.popleft()
            # If the learner has died, the steps under way show it.
            with suppress(RayError):
                ray.get(answered)
                self._weights = weights

    def _ask_one(self, method: str, what: str) -> Any:
        """The answer of a learner, even if learners have to be started again for it."""
        while True:
            try:
                (answer,) = self._actors.get([getattr(self._actors[0], method).remote()], what)
                return answer
            except LearnersLostError as error:
                self._restart(error)

    def _ask_all(self, method: str, what: str) -> list[Any]:
        """The answers of all learners; none if they had to be started again."""
        try:
            return self._actors.get(
                [getattr(learner, method).remote() for learner in self._actors], what
            )
        except LearnersLostError as error:
            self._restart(error)
            return []

    def _restart(self, cause: LearnersLostError) -> None:
        self._take_weights()
        self._actors.restart(cause, self._weights, self._num_updates)
        if self._weights is not None:
            self.ask_for_weights(wait=True)


def split(batch: TransitionBatch, parts: int) -> list[TransitionBatch]:
    """Equal contiguous slices of `batch`, whose length is a multiple of `parts`."""
    if len(batch) % parts:
        raise ValueError(f"a batch must divide by the learners: got {len(batch)} and {parts}")
    size = len(batch) // parts
    return [batch.slice_rows(i * size, (i + 1) * size) for i in range(parts)]
