# SPDX-License-Identifier: MIT
"""How many updates are due: the replay ratio, held exactly."""

from __future__ import annotations


class ReplayRatio:
    """Counts transitions in and out, so that sampled / added is the ratio, to one batch.

    Learning starts once `learning_starts` transitions were added to this buffer, whether they came
    from environments or from a checkpoint; only what is added after that earns updates.

    Args:
        ratio: Transitions sampled per transition added, > 0.
        batch_size: Transitions per update.
        learning_starts: Transitions that replay must have seen before the first update.
    """

    def __init__(self, ratio: float, batch_size: int, learning_starts: int) -> None:
        self.ratio = ratio
        self.batch_size = batch_size
        self.learning_starts = max(learning_starts, 1)
        self.num_added = 0
        self._credit = 0.0
        self._num_asked_for = 0

    def add(self, num_transitions: int) -> None:
        """Note that replay took `num_transitions` in."""
        before = self.num_added
        self.num_added += num_transitions
        earning = self.num_added - max(before, self.learning_starts)
        if before < self.learning_starts <= self.num_added:
            # The first batch needs no credit: all that was added before has earned it.
            self._credit = float(self.batch_size)
        self._credit += max(earning, 0) * self.ratio

    @property
    def num_due(self) -> int:
        """Updates that are due now."""
        return int(self._credit // self.batch_size)

    def take_updates(self) -> int:
        """Updates that are due now; they count as done."""
        updates, self._credit = divmod(self._credit, self.batch_size)
        return int(updates)

    def take(self, num_updates: int) -> None:
        """Some of those that are due: their batches are asked for."""
        self._credit -= num_updates * self.batch_size
        self._num_asked_for += num_updates

    def begin(self) -> None:
        """One of those that were taken has its batch, and counts as done."""
        self._num_asked_for -= 1

    def give_back(self) -> None:
        """The batch of one that was taken will not come: it is due once more."""
        self._num_asked_for -= 1
        self._credit += self.batch_size

    def give_all_back(self) -> None:
        """The same of all that were taken and not begun."""
        while self._num_asked_for:
            self.give_back()

    def state(self) -> dict[str, float]:
        """What `load_state` needs; batches under way will not be there then, and are due again."""
        under_way = self._num_asked_for * self.batch_size
        return {"num_added": self.num_added, "credit": self._credit + under_way}

    def load_state(self, state: dict[str, float], *, with_buffer: bool) -> None:
        """Go on where `state` was; without its buffer, learning waits for a refilled one."""
        self.num_added = int(state["num_added"]) if with_buffer else 0
        self._credit = state["credit"] if with_buffer else 0.0
        self._num_asked_for = 0
