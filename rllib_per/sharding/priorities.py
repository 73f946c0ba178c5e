# SPDX-License-Identifier: MIT
"""TD errors on their way from the driver to the shards, and how late they are.

They are collected over many updates, and of an id's TD errors the last one is sent. A call that is
lost is sent again under its number, and the shard applies it once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllib_per.replay.fragment import PriorityUpdate
from rllib_per.replay.ids import INCARNATION_BITS, SEQUENCE_BITS
from rllib_per.settings.replay import ShardLimits
from rllib_per.sharding.calls import LOST, Deadline, is_ready, wait_for_any
from rllib_per.sharding.pool import ShardPool
from rllib_per.sharding.proxy import ShardProxy
from rllib_per.sharding.shard import ReplayShard, is_too_far_ahead

DRIVER = "driver"

_PAUSE_S = 0.02

# How long one look at priority updates under way lasts, before lost shards are looked for again.
_PATIENCE_S = 0.5


class ShardPriorities:
    """Takes in TD errors, batch by batch, and sends each shard its own; only `flush` waits.

    Attributes:
        lag: How late they are; its clock is that of `PriorityUpdate.asked_at`.
    """

    def __init__(self, pool: ShardPool, limits: ShardLimits) -> None:
        self._pool = pool
        self._timeout_s = limits.shard_timeout_s
        self.lag = PriorityLag()
        self._senders = [PrioritySender(proxy, limits, self.lag) for proxy in pool]

    def put(self, update: PriorityUpdate) -> None:
        """Give each shard the TD errors of its transitions, without those of past incarnations.

        Raises:
            ValueError: An id is of no shard here; nothing has changed.
            Exception: What a shard raised at an earlier update, such as TrainingDivergedError.
        """
        incarnations = update.ids >> SEQUENCE_BITS
        shards = incarnations >> INCARNATION_BITS
        num_shards = len(self._senders)
        if len(shards) and not 0 <= shards.min() <= shards.max() < num_shards:
            raise ValueError(
                f"ids must be of shards 0 to {num_shards - 1}: got ids of shards {shards.min()} to "
                f"{shards.max()}; hand back the ids of the batch unchanged"
            )
        now_s = time.monotonic()
        for shard, sender in enumerate(self._senders):
            own = shards == shard
            fresh = incarnations == (shard << INCARNATION_BITS | self._pool[shard].incarnation)
            sender.num_stale_lifetime += int(np.count_nonzero(own) - np.count_nonzero(fresh))
            own_update = PriorityUpdate(update.ids[fresh], update.td_errors[fresh], update.asked_at)
            sender.put(own_update, now_s)
        self.lag.take_in(update.asked_at)
        self.poll()

    def poll(self, *, send_all: bool = False) -> None:
        """Read what has been answered, and send what is due or all. Never waits.

        Raises:
            Exception: What a shard raised at an update, such as TrainingDivergedError.
        """
        now_s = time.monotonic()
        for sender in self._senders:
            sender.read_answers()
        self._pool.poll()
        for sender in self._senders:
            sender.send(now_s, at_once=send_all)

    def flush(self) -> None:
        """Wait until every shard has all TD errors that are for it.

        A shard that does not answer is waited for: an update whose call got lost on its way is sent
        again, and one for an incarnation that is gone is dropped.
        """
        deadline = Deadline(self._timeout_s)
        while True:
            self.poll(send_all=True)
            owing = [sender for sender in self._senders if sender.owes_updates]
            if not owing:
                return
            if not deadline.left_s:
                raise TimeoutError(
                    f"waited {deadline.timeout_s:g} s for replay shards "
                    f"{[sender.proxy.index for sender in owing]} to take priority updates; look at "
                    "their processes, or raise shard_timeout_s"
                )
            waiting = [reference for sender in owing for reference in sender.in_flight]
            if not waiting:
                time.sleep(_PAUSE_S)
            else:
                wait_for_any(waiting, min(deadline.left_s, _PATIENCE_S))

    def metrics(self) -> dict[str, float]:
        """What was sent and dropped, and how late it was since the last call."""
        now_s, senders = time.monotonic(), self._senders
        for sender in senders:
            sender.drop_stale()
        metrics: dict[str, float] = {
            "num_dropped_updates_lifetime": sum(s.num_stale_lifetime for s in senders),
            "num_priority_calls_lifetime": sum(s.num_calls_lifetime for s in senders),
            "num_priority_bytes_lifetime": sum(s.num_bytes_lifetime for s in senders),
            "num_priority_calls_in_flight": sum(len(s.in_flight) for s in senders),
            "priority_wait_max_s": max(s.wait_s(now_s) for s in senders),
        }
        return self.lag.pop() | {name: float(value) for name, value in metrics.items()}


@dataclass
class _SentUpdate:
    """A priority update on its way; it may be sent again under its number."""

    update: PriorityUpdate
    sent_s: float
    answer: Any


class PrioritySender:
    """Sends TD errors to one shard, for as long as its incarnation is the one they are for.

    Attributes:
        proxy: The shard.
        num_calls_lifetime, num_bytes_lifetime: Updates sent.
        num_stale_lifetime: TD errors dropped here, because their incarnation is gone.
    """

    def __init__(self, proxy: ShardProxy, limits: ShardLimits, lag: PriorityLag) -> None:
        self.proxy = proxy
        self.num_calls_lifetime = 0
        self.num_bytes_lifetime = 0
        self.num_stale_lifetime = 0
        self._max_calls = limits.max_calls_in_flight
        self._lag = lag
        self._outbox = PriorityOutbox(limits.priority_flush_updates, limits.priority_flush_s)
        self._incarnation = proxy.incarnation
        self._in_flight: dict[int, _SentUpdate] = {}
        self._uncertain: dict[int, _SentUpdate] = {}
        self._sequence = 0

    @property
    def in_flight(self) -> list[Any]:
        """References to the answers that have not been read yet."""
        return [sent.answer for sent in self._in_flight.values()]

    @property
    def owes_updates(self) -> bool:
        """Whether TD errors were taken in that the shard is not known to have, or to have lost."""
        return bool(self._in_flight or self._uncertain or len(self._outbox))

    def wait_s(self, now_s: float) -> float:
        """How long the oldest TD error has waited here."""
        return self._outbox.age_s(now_s)

    def put(self, update: PriorityUpdate, now_s: float) -> None:
        """TD errors of this incarnation, to be sent some time soon."""
        self.drop_stale()
        self._outbox.put(update, now_s)

    def read_answers(self) -> None:
        """Read the answers that are there. Never waits.

        Raises:
            Exception: What the shard raised at an update, such as TrainingDivergedError.
        """
        for sequence, sent in list(self._in_flight.items()):
            if is_ready(sent.answer):
                del self._in_flight[sequence]
                self._read_answer(sequence, sent)

    def send(self, now_s: float, *, at_once: bool = False) -> None:
        """Send what was lost on its way, and what is due; while too much is under way, it waits."""
        self.drop_stale()
        if not self.proxy.is_live:
            return
        for sequence, sent in self._uncertain.items():
            self._send(sequence, sent.update, now_s)
        self._uncertain.clear()
        if not (at_once or self._outbox.is_due(now_s)) or self._is_busy():
            return
        update = self._outbox.pop()
        if update is not None:
            self._send(self._sequence, update, now_s)
            self._sequence += 1

    def drop_stale(self) -> None:
        """Drop and count what was meant for an incarnation that is gone."""
        if self._incarnation == self.proxy.incarnation:
            return
        self._incarnation = self.proxy.incarnation
        dropped = [sent.update for sent in self._uncertain.values()]
        waiting = self._outbox.pop()
        dropped += [] if waiting is None else [waiting]
        self._uncertain.clear()
        self.num_stale_lifetime += sum(len(update.ids) for update in dropped)

    def _is_busy(self) -> bool:
        return len(self._in_flight) >= self._max_calls or is_too_far_ahead(
            self._sequence, self._in_flight
        )

    def _send(self, sequence: int, update: PriorityUpdate, now_s: float) -> None:
        self.num_calls_lifetime += 1
        self.num_bytes_lifetime += update.ids.nbytes + update.td_errors.nbytes
        answer = self.proxy.handle.call(ReplayShard.update_priorities, DRIVER, sequence, update)
        self._in_flight[sequence] = _SentUpdate(update, now_s, answer)

    def _read_answer(self, sequence: int, sent: _SentUpdate) -> None:
        try:
            summary = self.proxy.fetch(sent.answer, "take priorities")
        except LOST as error:
            self._uncertain[sequence] = sent
            self.proxy.lose(error)
        else:
            self.proxy.record_summary(summary, sent.sent_s)
            self._lag.confirm(sent.update.asked_at)


class PriorityOutbox:
    """Coalesces the priority updates of one replay shard.

    Holds at most one TD error per id. It is due `flush_updates` updates or `flush_s` seconds after
    its oldest entry, whichever is first; while it can't be sent it goes on coalescing.

    Args:
        flush_updates: Updates that may wait, >= 1; 1 sends each at once.
        flush_s: Seconds that an update may wait, >= 0.
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

    def __len__(self) -> int:
        """TD errors that wait; an id counts as often as it was put in since the last merge."""
        return sum(len(update.ids) for update in self._updates)

    def put(self, update: PriorityUpdate, now_s: float) -> None:
        """Take in the rows of one update that belong to this shard; none is fine too."""
        if not len(update.ids):
            return
        if not self._updates:
            self._oldest_s = now_s
        self._updates.append(update)
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
        """All that waits, one TD error per id; None when nothing does.

        It was asked for when the batch of the oldest entry was.
        """
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
    return PriorityUpdate(unique, td_errors[::-1][where], updates[0].asked_at)


class Lag:
    """Mean and maximum of some lag since they were last asked for."""

    def __init__(self) -> None:
        self._sum = self._max = self._count = 0

    def record(self, num_updates: int) -> None:
        """One thing was `num_updates` late."""
        self._sum += num_updates
        self._max = max(self._max, num_updates)
        self._count += 1

    def pop(self, name: str) -> dict[str, float]:
        """`{name}_mean_updates` and `{name}_max_updates`; {} if nothing has come since."""
        if not self._count:
            return {}
        metrics = {
            f"{name}_mean_updates": self._sum / self._count,
            f"{name}_max_updates": float(self._max),
        }
        self._sum = self._max = self._count = 0
        return metrics


class PriorityLag:
    """From the request for a batch to its TD errors at the driver, and in the shards.

    Its clock counts the batches whose TD errors have come to the driver: a lag of 0 means that none
    came between.
    """

    def __init__(self) -> None:
        self.now = 0
        self._at_driver, self._in_shards = Lag(), Lag()

    def take_in(self, asked_at: int | None) -> None:
        """The TD errors of a batch that was asked for at `asked_at` have come to the driver."""
        if asked_at is not None:
            self._at_driver.record(self.now - asked_at)
        self.now += 1

    def confirm(self, asked_at: int | None) -> None:
        """A shard has what was sent to it, the oldest of it asked for at `asked_at`."""
        if asked_at is not None:
            self._in_shards.record(self.now - 1 - asked_at)

    def pop(self) -> dict[str, float]:
        """Means and maxima since the last call."""
        return self._at_driver.pop("td_error_lag") | self._in_shards.pop("priority_lag")
