# SPDX-License-Identifier: MIT
"""One gradient step over RLlib's LearnerGroup: one batch in, its TD errors beside their ids out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import ray
from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_per.replay import PriorityUpdate, TransitionBatch


class Learners:
    """A local learner, or N remote ones in lock step on equal slices of the batch."""

    def __init__(self, group: LearnerGroup) -> None:
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


def _joined(answers: list[PriorityUpdate | None]) -> PriorityUpdate | None:
    updates = [answer for answer in answers if answer is not None]
    if not updates:
        return None
    return PriorityUpdate(
        ids=np.concatenate([u.ids for u in updates]),
        td_errors=np.concatenate([u.td_errors for u in updates]),
    )
