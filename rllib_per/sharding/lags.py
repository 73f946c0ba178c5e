# SPDX-License-Identifier: MIT
"""How late things are, in updates: the clock of learning, whatever the machine's speed."""

from __future__ import annotations


class Lag:
    """Mean and maximum of some lag since they were last asked for."""

    def __init__(self) -> None:
        self._sum = self._max = self._count = 0

    def note(self, num_updates: int) -> None:
        """One thing was so many updates late."""
        self._sum += num_updates
        self._max = max(self._max, num_updates)
        self._count += 1

    def pop(self, name: str) -> dict[str, float]:
        """`{name}_mean_updates` and `{name}_max_updates`; {} if nothing has come since."""
        if not self._count:
            return {}
        figures = {
            f"{name}_mean_updates": self._sum / self._count,
            f"{name}_max_updates": float(self._max),
        }
        self._sum = self._max = self._count = 0
        return figures


class PriorityLag:
    """From the request for a batch to its TD errors at the driver, and in the shards.

    The clock are the batches of TD errors that came to the driver; a lag of 0 means that no other
    batch's came between.
    """

    def __init__(self) -> None:
        self.now = 0
        self._at_driver, self._in_shards = Lag(), Lag()

    def take_in(self, asked_at: int | None) -> None:
        """The TD errors of a batch that was asked for at `asked_at` have come to the driver."""
        if asked_at is not None:
            self._at_driver.note(self.now - asked_at)
        self.now += 1

    def confirm(self, asked_at: int | None) -> None:
        """A shard has what was sent to it, the oldest of it asked for at `asked_at`."""
        if asked_at is not None:
            self._in_shards.note(self.now - 1 - asked_at)

    def pop(self) -> dict[str, float]:
        """Means and maxima since the last call."""
        return self._at_driver.pop("td_error_lag") | self._in_shards.pop("priority_lag")
