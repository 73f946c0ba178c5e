# SPDX-License-Identifier: MIT
"""The driver's links to all shards, and what is done with all of them at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rllib_per.replay.fragment import Float32s, Int64s
from rllib_per.replay.ids import INCARNATION_BITS, SEQUENCE_BITS
from rllib_per.sharding.handles import LOST, Deadline, ShardHandle, wait_for_any
from rllib_per.sharding.lags import PriorityLag
from rllib_per.sharding.limits import ShardLimits
from rllib_per.sharding.link import ShardLink

_PAUSE_S = 0.02

# How long one look at priority updates under way lasts, before lost shards are looked for again.
_PATIENCE_S = 0.5


class ShardLinks:
    """One link per shard.

    Args:
        handles: How to call each shard; the first incarnations are started here.
        limits: What may be under way, and how long to wait.
        settings: Each shard's, where they were placed without; None: they have them.
    Raises:
        TimeoutError: A shard did not start.
        Exception: What the buffer's constructor raised.
    """

    def __init__(
        self,
        handles: Sequence[ShardHandle],
        limits: ShardLimits,
        settings: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._limits = limits
        self.lag = PriorityLag()
        self._links = [ShardLink(k, handle, limits, self.lag) for k, handle in enumerate(handles)]
        for link in self._links:
            link.settings = None if settings is None else settings[link.index]
            link.start()
        self.await_all()

    @property
    def timeout_s(self) -> float:
        """How long a shard may take to answer, and to come back."""
        return self._limits.shard_timeout_s

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[ShardLink]:
        return iter(self._links)

    def __getitem__(self, shard: int) -> ShardLink:
        return self._links[shard]

    def put_priorities(self, ids: Int64s, td_errors: Float32s, asked_at: int | None = None) -> None:
        """Give each shard the TD errors of its transitions, without those of past incarnations.

        Args:
            ids: Of the transitions.
            td_errors: Theirs.
            asked_at: When their batch was asked for, on the clock of `PriorityLag`.
        Raises:
            ValueError: An id is of no shard here.
        """
        incarnations = ids >> SEQUENCE_BITS
        shards = incarnations >> INCARNATION_BITS
        if len(ids) and not 0 <= shards.min() <= shards.max() < len(self):
            raise ValueError(
                f"ids must be of shards 0 to {len(self) - 1}: got ids of shards {shards.min()} to "
                f"{shards.max()}; hand back the ids of the batch unchanged"
            )
        now_s = time.monotonic()
        for link in self._links:
            own = shards == link.index
            fresh = incarnations == (link.index << INCARNATION_BITS | link.incarnation)
            link.num_stale_lifetime += int(np.count_nonzero(own) - np.count_nonzero(fresh))
            link.put(ids[fresh], td_errors[fresh], now_s, asked_at)
        self.lag.take_in(asked_at)

    def poll(self, *, send_all: bool = False) -> None:
        """Read what has been answered, and send what is due or all. Never waits."""
        now_s = time.monotonic()
        for link in self._links:
            link.tend(now_s)
            link.send_priorities(now_s, at_once=send_all)

    def flush(self) -> None:
        """Wait until every shard has all TD errors that are for it.

        A shard that does not answer is waited for: an update whose call got lost on its way is sent
        again, and one for an incarnation that is gone is dropped.
        """
        deadline = Deadline(self._limits.shard_timeout_s)
        while True:
            self.poll(send_all=True)
            owing = [link for link in self._links if link.owes_updates]
            if not owing:
                return
            if not deadline.left_s:
                raise TimeoutError(
                    f"waited {deadline.timeout_s:g} s for replay shards "
                    f"{[link.index for link in owing]} to take priority updates; look at their "
                    "processes, or raise shard_timeout_s"
                )
            waiting = [handle for link in owing for handle in link.updates_in_flight()]
            if not waiting:
                time.sleep(_PAUSE_S)
            else:
                wait_for_any(waiting, min(deadline.left_s, _PATIENCE_S))

    def refresh(self) -> float:
        """Wait until no live shard's picture is older than allowed; how old the oldest is, in s."""
        while True:
            for link in self._links:
                link.ask_again()
            self._await(any, "any replay shard")
            now_s = time.monotonic()
            for link in self._links:
                if link.picture_age_s(now_s) > self._limits.max_picture_age_s:
                    link.refresh()
            if not any(link.is_doubtful for link in self._links):
                now_s = time.monotonic()
                return max(link.picture_age_s(now_s) for link in self._links)

    def call(self, link: ShardLink, what: str, method: str, *arguments: Any) -> Any:
        """One shard's answer to a call that may be repeated; if it is lost, it is waited for."""
        deadline = Deadline(self._limits.shard_timeout_s)
        while True:
            self.await_all()
            try:
                return link.fetch(link.handle.call(method, *arguments), what)
            except LOST as error:
                link.lose(error)
                if not deadline.left_s:
                    raise

    def call_all(self, what: str, method: str, *arguments: Any) -> list[Any]:
        """Every shard's answer, one after the other."""
        return [self.call(link, what, method, *arguments) for link in self._links]

    def call_live(self, what: str, method: str) -> dict[int, Any]:
        """The answers of those shards that do answer, by their numbers."""
        live = [link for link in self._links if link.is_live]
        answers = {}
        for link, handle in [(link, link.handle.call(method)) for link in live]:
            try:
                answers[link.index] = link.fetch(handle, what)
            except LOST as error:
                link.lose(error)
        return answers

    def await_all(self) -> None:
        """Wait until no shard is lost."""
        self._await(all, "all replay shards")

    def _await(self, how_many: Callable[[list[bool]], bool], who: str) -> None:
        deadline = Deadline(self._limits.shard_timeout_s)
        while not how_many([link.is_live for link in self._links]):
            if not deadline.left_s:
                lost = [link.index for link in self._links if not link.is_live]
                raise TimeoutError(
                    f"waited {deadline.timeout_s:g} s for {who} to be there; shards {lost} are "
                    "lost: look at their processes, and whether there are CPUs for them, or raise "
                    "shard_timeout_s"
                )
            time.sleep(_PAUSE_S)
            self.poll()

    def traffic(self) -> dict[str, float]:
        """Figures of what goes to and fro."""
        now_s = time.monotonic()
        links = self._links
        figures: dict[str, float] = {
            "num_shards": len(links),
            "num_shards_live": sum(link.is_live for link in links),
            "num_shards_lost_lifetime": sum(link.num_lost_lifetime for link in links),
            "num_transitions_lost_lifetime": sum(
                link.num_transitions_lost_lifetime for link in links
            ),
            "num_transitions_recovered_lifetime": sum(
                link.num_transitions_recovered_lifetime for link in links
            ),
            "num_dropped_updates_lifetime": sum(link.num_stale_lifetime for link in links),
            "num_priority_calls_lifetime": sum(link.num_calls_lifetime for link in links),
            "num_priority_bytes_lifetime": sum(link.num_bytes_lifetime for link in links),
            "num_priority_calls_in_flight": sum(link.num_updates_in_flight for link in links),
            "priority_wait_max_s": max(link.priority_age_s(now_s) for link in links),
        }
        return {name: float(value) for name, value in figures.items()}
