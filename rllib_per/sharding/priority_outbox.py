# SPDX-License-Identifier: MIT
"""TD errors on their way back to replay: collected over many updates; an id's last one wins."""

from __future__ import annotations

import numpy as np

from rllib_per.replay.fragment import Float32s, Int64s, PriorityUpdate


class PriorityOutbox:
    """Coalesces the priority updates of one replay shard.

    Holds at most one TD error per id. It is due `flush_updates` updates or `flush_s` seconds after
    its oldest entry, whichever is first; while it can't be sent it goes on coalescing.

    Args:
        flush_updates: Updates that may wait, >= 1; 1 sends each at once.
        flush_s: Seconds that an update may wait, >= 0.

    Attributes:
        asked_at: When the batch of the oldest entry was asked for, on the clock of `PriorityLag`.
    """

    def __init__(self, flush_updates: int, flush_s: float) -> None:
        if flush_updates < 1:
            raise ValueError(f"priority_flush_updates must be at least 1: got {flush_updates}")
        if not flush_s >= 0.0:
            raise ValueError(f"priority_flush_s must be at least 0: got {flush_s}")
        self._flush_updates = flush_updates
        self._flush_s = flush_s
        self._updates: list[PriorityUpdate] = []
        self._num_updates = 0
        self._oldest_s = 0.0
        self.asked_at: int | None = None

    def __len__(self) -> int:
        """TD errors that wait; an id counts as often as it was put in since the last merge."""
        return sum(len(update.ids) for update in self._updates)

    def put(
        self, ids: Int64s, td_errors: Float32s, now_s: float, asked_at: int | None = None
    ) -> None:
        """Take in the rows of one update that belong to this shard; none is fine too."""
        if not len(ids):
            return
        if not self._updates:
            self._oldest_s, self.asked_at = now_s, asked_at
        self._updates.append(PriorityUpdate(ids, td_errors))
        self._num_updates += 1
        # Merging now and then bounds what waits by the number of ids, at a cost per row of O(log).
        if len(self._updates) > 2 * self._flush_updates:
            self._updates = [_merged(self._updates)]

    def is_due(self, now_s: float) -> bool:
        """Whether something has waited long enough."""
        return bool(self._updates) and (
            self._num_updates >= self._flush_updates or now_s - self._oldest_s >= self._flush_s
        )

    def age_s(self, now_s: float) -> float:
        """How long the oldest entry has waited; 0 when nothing does."""
        return now_s - self._oldest_s if self._updates else 0.0

    def pop(self) -> PriorityUpdate | None:
        """All that waits, one TD error per id; None when nothing does."""
        if not self._updates:
            return None
        merged = _merged(self._updates)
        self._updates = []
        self._num_updates = 0
        return merged


def _merged(updates: list[PriorityUpdate]) -> PriorityUpdate:
    """One update that does what `updates` do one after the other."""
    ids = np.concatenate([update.ids for update in updates])
    td_errors = np.concatenate([update.td_errors for update in updates])
    # The first of an id in reverse order is its last.
    unique, where = np.unique(ids[::-1], return_index=True)
    return PriorityUpdate(unique, td_errors[::-1][where])
