# SPDX-License-Identifier: MIT
"""One gradient step over RLlib's LearnerGroup: one batch in, its TD errors beside their ids out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_per.replay import PriorityUpdate, TransitionBatch
from rllib_per.sharding import BatchPart


class Learners:
    """A local learner, or N remote ones in lock step on equal slices of the batch."""

    def __init__(self, group: LearnerGroup, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._local = group._learner if group.is_local else None
        self._remote = [] if group.is_local else list(group._workers)

    def update(
        self, batch: TransitionBatch, *, timesteps: dict[str, int], lr: float
    ) -> PriorityUpdate | None:
        """Take one gradient step; on a GPU the TD errors returned are those of the step before."""
        if self._local is not None:
            return self._local.update_from_replay(batch, timesteps=timesteps, lr=lr)
        answers = ray.get(
            [
                worker.update_from_replay.remote(part, timesteps=timesteps, lr=lr)
                for worker, part in zip(self._remote, split(batch, len(self._remote)), strict=True)
            ]
        )
        return _joined(answers)

    @property
    def num_parts(self) -> int:
        """Into how many equal parts a batch for `begin` is to be drawn."""
        return len(self._remote) or 1

    def begin(
        self, parts: Sequence[BatchPart], *, timesteps: dict[str, int], lr: float
    ) -> list[Any]:
        """Start a gradient step on a part per learner; handles for `finish`.

        A local learner has taken it when this returns. Remote ones take their steps in the order of
        the calls, so that all are at the same step and their gradients belong together.
        """
        if self._local is not None:
            (part,) = parts
            blocks = self._get(part.blocks, "the rows of a batch from replay")
            return [
                self._local.update_from_blocks(
                    part.factors, part.limit, *blocks, timesteps=timesteps, lr=lr
                )
            ]
        return [
            worker.update_from_blocks.remote(
                part.factors, part.limit, *part.blocks, timesteps=timesteps, lr=lr
            )
            for worker, part in zip(self._remote, parts, strict=True)
        ]

    def finish(self, handles: Sequence[Any]) -> PriorityUpdate | None:
        """The TD errors of a step that `begin` began; waits for them, with a deadline."""
        if self._local is not None:
            return _joined(handles)
        return _joined(self._get(handles, "the learners' TD errors"))

    def _get(self, references: Sequence[ray.ObjectRef], what: str) -> list[Any]:
        try:
            return ray.get(list(references), timeout=self._timeout_s)
        except GetTimeoutError:
            raise TimeoutError(
                f"waited {self._timeout_s:g} s for {what}; a process is overloaded or hangs: look "
                "at them, or raise sample_timeout_s"
            ) from None

    def weights(self) -> ray.ObjectRef:
        """A reference to the weights after all steps begun so far, as an env runner takes them."""
        wanted = {"components": COMPONENT_RL_MODULE, "inference_only": True}
        if self._local is not None:
            return ray.put(self._local.get_state(**wanted))
        return self._remote[0].get_state.remote(**wanted)

    def flush(self) -> PriorityUpdate | None:
        """The TD errors of the last step, where `update` has not returned them yet."""
        if self._local is not None:
            return self._local.flush()
        return _joined(ray.get([worker.flush.remote() for worker in self._remote]))

    def pop_metrics(self) -> list[dict[str, Any]]:
        """RLlib's result dict of each learner since the last call."""
        if self._local is not None:
            return [self._local.pop_metrics()]
        return ray.get([worker.pop_metrics.remote() for worker in self._remote])


def split(batch: TransitionBatch, parts: int) -> list[TransitionBatch]:
    """Equal contiguous slices of `batch`, whose length is a multiple of `parts`."""
    if len(batch) % parts:
        raise ValueError(f"a batch must divide by the learners: got {len(batch)} and {parts}")
    size = len(batch) // parts
    return [_rows(batch, slice(i * size, (i + 1) * size)) for i in range(parts)]


def _rows(batch: TransitionBatch, rows: slice) -> TransitionBatch:
    columns = {
        field.name: getattr(batch, field.name)[rows]
        for field in fields(batch)
        if field.name != "extras"
    }
    extras = {name: column[rows] for name, column in batch.extras.items()}
    return TransitionBatch(**columns, extras=extras)


def _joined(answers: Sequence[PriorityUpdate | None]) -> PriorityUpdate | None:
    updates = [answer for answer in answers if answer is not None]
    if not updates:
        return None
    return PriorityUpdate(
        ids=np.concatenate([u.ids for u in updates]),
        td_errors=np.concatenate([u.td_errors for u in updates]),
    )
