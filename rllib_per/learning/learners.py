# SPDX-License-Identifier: MIT
"""Gradient steps: one batch in, its TD errors beside their ids out, wherever the learners are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_per.arrays import Allocator
from rllib_per.learning.atom_range import AtomRange
from rllib_per.learning.network_health import DORMANT_SHARE_KEY, DeadAdvantages
from rllib_per.learning.q_proportion import QProportion
from rllib_per.learning.update_metrics import (
    QF_ABS_MEAN_KEY,
    RETURN_ABS_MAX_KEY,
    TARGET_MAX_KEY,
    TARGET_MIN_KEY,
)
from rllib_per.replay import PriorityUpdate, TransitionBatch
from rllib_per.settings.training import Training
from rllib_per.sharding import BatchPart


@dataclass(frozen=True)
class Update:
    """A gradient step under way.

    Attributes:
        answers: A reference per learner to its TD errors, or a local learner's TD errors; none
            where the rows never came.
        generation: Of the learners that take it.
    """

    answers: Sequence[Any]
    generation: int = 0


class Learners(ABC):
    """`LocalLearner` in this process, or `RemoteLearners`.

    Attributes:
        num_updates_lost_lifetime: Gradient steps that were begun and never taken.
    """

    def __init__(self, training: Training) -> None:
        self._q_proportion = QProportion(training.gamma)
        self._dead_advantages = DeadAdvantages()
        self._atom_range = AtomRange(training.num_atoms, training.v_min, training.v_max)
        self.num_updates_lost_lifetime = 0

    @property
    @abstractmethod
    def num_parts(self) -> int:
        """Into how many equal parts a batch for `start_update` is to be drawn."""

    @property
    @abstractmethod
    def batch_allocator(self) -> Allocator | None:
        """For the arrays of batches that `update` takes; None leaves them to replay."""

    @property
    @abstractmethod
    def num_restarts(self) -> int:
        """How often learners were started again."""

    # -- gradient steps ----------------------------------------------------------------------

    @abstractmethod
    def update(
        self, batch: TransitionBatch, *, timesteps: dict[str, int], lr: float
    ) -> PriorityUpdate | None:
        """Take one gradient step; on a GPU the TD errors returned are those of the step before."""

    @abstractmethod
    def start_update(
        self, parts: Sequence[BatchPart], *, timesteps: dict[str, int], lr: float
    ) -> Update:
        """Start a gradient step on a part per learner, to be finished by `finish`."""

    @abstractmethod
    def is_done(self, update: Update) -> bool:
        """Whether `finish` would return at once, or has to restart learners."""

    @abstractmethod
    def finish(self, update: Update) -> PriorityUpdate | None:
        """The TD errors of a step that `start_update` started; waits for them, with a deadline.

        None if it was lost with its rows, or with learners: others are there by then.
        """

    @abstractmethod
    def flush(self) -> PriorityUpdate | None:
        """The TD errors of the last step, where `update` has not returned them yet."""

    # -- weights and figures -----------------------------------------------------------------

    @property
    @abstractmethod
    def weights(self) -> ray.ObjectRef:
        """A reference to the newest weights that are there, as an env runner takes them."""

    @abstractmethod
    def ask_for_weights(self, *, wait: bool = False) -> None:
        """Let `weights` become those after all steps begun so far, at once or before long."""

    @abstractmethod
    def remember_weights(self) -> None:
        """Let learners that die all at once be started again from the weights of now."""

    @abstractmethod
    def read_weights(self) -> dict[str, Any]:
        """The weights after all steps begun so far, as an env runner takes them; waits for them."""

    @abstractmethod
    def read_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all weights by name, as they are saved.

        Empty where the module has a `set_state` of its own, which decides what fits.
        """

    def pop_metrics(self) -> list[dict[str, Any]]:
        """RLlib's result dict of each learner since the last call.

        Logs a warning, once, if Q-values are out of all proportion to the rewards, one if they
        leave the atoms of their distribution, and one if the advantage stream is dead.
        """
        results = self._pop_results()
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

    @abstractmethod
    def _pop_results(self) -> list[dict[str, Any]]: ...


def joined(answers: Sequence[PriorityUpdate | None]) -> PriorityUpdate | None:
    """The TD errors of all learners as one; None where there are none yet."""
    updates = [answer for answer in answers if answer is not None]
    if not updates:
        return None
    return PriorityUpdate(
        ids=np.concatenate([u.ids for u in updates]),
        td_errors=np.concatenate([u.td_errors for u in updates]),
        asked_at=updates[0].asked_at,
    )
