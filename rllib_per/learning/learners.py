# SPDX-License-Identifier: MIT
"""One gradient step over RLlib's LearnerGroup: one batch in, its TD errors beside their ids out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayError
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_per.arrays import Allocator
from rllib_per.learning.atom_range import AtomRange
from rllib_per.learning.learner_actors import LearnerActors, LearnersLostError
from rllib_per.learning.network_health import DORMANT_SHARE_KEY, DeadAdvantages
from rllib_per.learning.q_proportion import QProportion
from rllib_per.learning.update_metrics import (
    QF_ABS_MEAN_KEY,
    RETURN_ABS_MAX_KEY,
    TARGET_MAX_KEY,
    TARGET_MIN_KEY,
)
from rllib_per.replay import PriorityUpdate, TransitionBatch
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.training import Training
from rllib_per.sharding import BatchPart

_TD_ERRORS = "the TD errors"


@dataclass(frozen=True)
class Update:
    """A gradient step under way.

    Attributes:
        answers: A reference per learner to its TD errors; none where the rows never came.
        generation: Of the learners that take it.
    """

    answers: Sequence[Any]
    generation: int = 0


class Learners:
    """A local learner, or N remote ones in lock step on equal slices of the batch.

    Remote ones that die are started again (`LearnerActors`); what they had under way is lost.

    Attributes:
        num_updates_lost_lifetime: Gradient steps that died with their learners.
    """

    def __init__(
        self,
        group: LearnerGroup,
        rebuild: Callable[[], LearnerGroup],
        settings: LearnerSettings,
        training: Training,
    ) -> None:
        self._local = group._learner if group.is_local else None
        self._remote = (
            None
            if group.is_local
            else LearnerActors(
                group, rebuild, settings.learner_timeout_s, settings.max_learner_restarts
            )
        )
        self._timeout_s = settings.learner_timeout_s
        self._num_updates = 0
        self._weights: ray.ObjectRef | None = None
        # For each request of weights: a reference that is ready with them, and one to the weights.
        self._asked: deque[tuple[ray.ObjectRef, ray.ObjectRef]] = deque()
        self._q_proportion = QProportion(training.gamma)
        self._dead_advantages = DeadAdvantages()
        self._atom_range = AtomRange(training.num_atoms, training.v_min, training.v_max)
        self.num_updates_lost_lifetime = 0

    @property
    def num_parts(self) -> int:
        """Into how many equal parts a batch for `start_update` is to be drawn."""
        return 1 if self._remote is None else len(self._remote)

    @property
    def batch_allocator(self) -> Allocator | None:
        """For the arrays of batches that `update` takes; None leaves them to replay."""
        return None if self._local is None else self._local.batch_allocator

    @property
    def num_restarts(self) -> int:
        """How often remote learners were started again."""
        return 0 if self._remote is None else self._remote.num_restarts

    # -- gradient steps ----------------------------------------------------------------------

    def update(
        self, batch: TransitionBatch, *, timesteps: dict[str, int], lr: float
    ) -> PriorityUpdate | None:
        """Take one gradient step; on a GPU the TD errors returned are those of the step before.

        Learners that die meanwhile are started again, and take it then.
        """
        if self._local is not None:
            return self._local.update_from_replay(batch, timesteps=timesteps, lr=lr)
        self._num_updates = timesteps["updates"]
        actors = self._require_remote()
        while True:
            answers = [
                learner.update_from_replay.remote(part, timesteps=timesteps, lr=lr)
                for learner, part in zip(actors, split(batch, len(actors)), strict=True)
            ]
            try:
                return _joined(actors.get(answers, _TD_ERRORS))
            except LearnersLostError as error:
                self._restart(error)

    def start_update(
        self, parts: Sequence[BatchPart], *, timesteps: dict[str, int], lr: float
    ) -> Update:
        """Start a gradient step on a part per learner, to be finished by `finish`.

        A local learner has taken it when this returns. Remote ones take their steps in the order of
        the calls, so that all are at the same step and their gradients belong together.
        """
        self._num_updates = timesteps["updates"] + 1
        if self._local is not None:
            (part,) = parts
            blocks = self._fetch(part.blocks)
            if blocks is None:
                return Update(())
            answer = self._local.update_from_blocks(
                part.factors,
                part.limit,
                *blocks,
                asked_at=part.asked_at,
                timesteps=timesteps,
                lr=lr,
            )
            return Update([answer])
        actors = self._require_remote()
        answers = [
            learner.update_from_blocks.remote(
                part.factors,
                part.limit,
                *part.blocks,
                asked_at=part.asked_at,
                timesteps=timesteps,
                lr=lr,
            )
            for learner, part in zip(actors, parts, strict=True)
        ]
        return Update(answers, actors.num_restarts)

    def is_done(self, update: Update) -> bool:
        """Whether `finish` would return at once, or has to restart learners."""
        if self._remote is None or update.generation != self._remote.num_restarts:
            return True
        return self._remote.has_answered(update.answers)

    def finish(self, update: Update) -> PriorityUpdate | None:
        """The TD errors of a step that `start_update` started; waits for them, with a deadline.

        None if it was lost with the learners that were to take it; others are there by then.
        """
        if self._remote is None:
            return _joined(update.answers)
        if update.generation == self._remote.num_restarts:
            try:
                return _joined(self._remote.get(update.answers, _TD_ERRORS))
            except LearnersLostError as error:
                self._restart(error)
        self.num_updates_lost_lifetime += 1
        return None

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

    # -- weights and figures -----------------------------------------------------------------

    @property
    def weights(self) -> ray.ObjectRef:
        """A reference to the newest weights that are there, as an env runner takes them."""
        if self._local is not None:
            if self._weights is None:
                self._weights = ray.put(self._local.export_weights()[1])
            return self._weights
        self._take_weights()
        assert self._weights is not None
        return self._weights

    def _take_weights(self) -> None:
        """Those that have come of what was asked for."""
        # A learner that is never idle has always been asked once more since.
        while self._asked and self._require_remote().has_answered(self._asked[0][:1]):
            answered, weights = self._asked.popleft()
            # If the learner has died, the steps under way show it.
            with suppress(RayError):
                ray.get(answered)
                self._weights = weights

    def remember_weights(self) -> None:
        """Let remote learners that die all at once be started again from the weights of now."""
        if self._remote is not None:
            self._take_weights()
            self.ask_for_weights()

    def ask_for_weights(self, *, wait: bool = False) -> None:
        """Let `weights` become those after all steps begun so far, at once or before long."""
        if self._local is not None:
            self._weights = None  # They are handed out when someone wants them, and not before.
            return
        actors = self._require_remote()
        answered, weights = actors[0].export_weights.options(num_returns=2).remote()
        if not wait:
            self._asked.append((answered, weights))
            return
        self._asked.clear()
        actors.get([answered], "weights")
        self._weights = weights

    def read_weights(self) -> dict[str, Any]:
        """The weights after all steps begun so far, as an env runner takes them; waits for them."""
        _, weights = self._ask_one("export_weights", "weights")
        return dict(weights)

    def read_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all weights by name, as they are saved.

        Empty where the module has a `set_state` of its own, which decides what fits.
        """
        return dict(self._ask_one("weight_shapes", "the shapes of weights"))

    def flush(self) -> PriorityUpdate | None:
        """The TD errors of the last step, where `update` has not returned them yet."""
        if self._local is not None:
            return self._local.flush()
        return _joined(self._ask_all("flush", _TD_ERRORS))

    def pop_metrics(self) -> list[dict[str, Any]]:
        """RLlib's result dict of each learner since the last call.

        Logs a warning, once, if Q-values are out of all proportion to the rewards, one if they
        leave the atoms of their distribution, and one if the advantage stream is dead.
        """
        if self._local is not None:
            results = [self._local.pop_metrics()]
        else:
            results = self._ask_all("pop_metrics", "metrics")
        for result in results:
            figures = result.get(DEFAULT_MODULE_ID, {})
            if QF_ABS_MEAN_KEY in figures:
                self._q_proportion.look(
                    figures[QF_ABS_MEAN_KEY].peek(), figures[RETURN_ABS_MAX_KEY].peek()
                )
                self._atom_range.look(
                    figures[TARGET_MIN_KEY].peek(), figures[TARGET_MAX_KEY].peek()
                )
            shares = figures.get(DORMANT_SHARE_KEY, {})
            self._dead_advantages.look({name: share.peek() for name, share in shares.items()})
        return results

    def _ask_one(self, method: str, what: str) -> Any:
        """The answer of a learner, even if learners have to be started again for it."""
        if self._local is not None:
            return getattr(self._local, method)()
        actors = self._require_remote()
        while True:
            try:
                (answer,) = actors.get([getattr(actors[0], method).remote()], what)
                return answer
            except LearnersLostError as error:
                self._restart(error)

    def _ask_all(self, method: str, what: str) -> list[Any]:
        """The answers of all learners; none if they had to be started again."""
        actors = self._require_remote()
        try:
            return actors.get([getattr(learner, method).remote() for learner in actors], what)
        except LearnersLostError as error:
            self._restart(error)
            return []

    def _restart(self, cause: LearnersLostError) -> None:
        actors = self._require_remote()
        self._take_weights()
        actors.restart(cause, self._weights, self._num_updates)
        if self._weights is not None:
            self.ask_for_weights(wait=True)

    def _require_remote(self) -> LearnerActors:
        assert self._remote is not None
        return self._remote


def split(batch: TransitionBatch, parts: int) -> list[TransitionBatch]:
    """Equal contiguous slices of `batch`, whose length is a multiple of `parts`."""
    if len(batch) % parts:
        raise ValueError(f"a batch must divide by the learners: got {len(batch)} and {parts}")
    size = len(batch) // parts
    return [batch.slice_rows(i * size, (i + 1) * size) for i in range(parts)]


def _joined(answers: Sequence[PriorityUpdate | None]) -> PriorityUpdate | None:
    updates = [answer for answer in answers if answer is not None]
    if not updates:
        return None
    return PriorityUpdate(
        ids=np.concatenate([u.ids for u in updates]),
        td_errors=np.concatenate([u.td_errors for u in updates]),
        asked_at=updates[0].asked_at,
    )
