# SPDX-License-Identifier: MIT
"""One shard as the driver knows it: whether it is live, which incarnation it is, what it holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rllib_per.settings.replay import ShardLimits
from rllib_per.sharding.calls import (
    LOST,
    Arguments,
    Deadline,
    ShardHandle,
    ShardMethod,
    fetch,
    is_ready,
    wait_for_any,
)
from rllib_per.sharding.shard import ReplayShard, ShardSummary

logger = logging.getLogger(__name__)

_PAUSE_S = 0.02
_LOOK_S = 0.1  # How often Ray is asked about the process of a shard that does not answer.


class ShardProxy:
    """Stands for one shard in the driver.

    A shard whose call fails is *doubtful* until it is known whether only a message was lost: no
    draw goes on without it meanwhile (`ask_again`). If it answers as the same incarnation, nothing
    was lost but time. If its process has ended it is *lost*, and takes part in no draw until a new
    process has started the next incarnation: empty, or with what was saved of the last one.

    Attributes:
        index: The shard's number.
        handle: How to call it.
        incarnation: The incarnation that ids of this shard must have.
        summary: The newest that is known of it.
        is_live: Whether its last call was answered.
        alpha: The α that a new process starts with; None: that of its settings.
        settings: Those of its buffer, where it was placed without; None: it has them.
        recovery: The saved replay buffer from which a lost shard takes its part; None: it starts
            empty.
        num_lost_lifetime: How often its content was lost.
        num_transitions_lost_lifetime: How many transitions that were.
        num_transitions_recovered_lifetime: How many came back out of what was saved.
    """

    def __init__(self, index: int, handle: ShardHandle, limits: ShardLimits) -> None:
        self.index = index
        self.handle = handle
        self.incarnation = 0
        self.summary = ShardSummary()
        self.is_live = False
        self.alpha: float | None = None
        self.settings: Mapping[str, Any] | None = None
        self.recovery: Path | None = None
        self.num_lost_lifetime = 0
        self.num_transitions_lost_lifetime = 0
        self.num_transitions_recovered_lifetime = 0
        self._limits = limits
        self._known_s = 0.0
        self._num_added_before = 0
        self._probe: Any = None
        self._probe_sent_s = 0.0
        self._next_probe_s = 0.0
        self._is_doubtful = False
        self._is_new_process = False

    @property
    def mass(self) -> float:
        """The shard's mass as it is known here; 0 while it is lost."""
        return self.summary.total_mass if self.is_live else 0.0

    @property
    def size(self) -> int:
        """How many transitions may be drawn, as far as is known; 0 once it is left out."""
        return self.summary.size if self.is_live or self._is_doubtful else 0

    @property
    def num_added_lifetime(self) -> int:
        """Transitions that became sampleable in all incarnations."""
        return self._num_added_before + self.summary.num_added

    @property
    def is_doubtful(self) -> bool:
        """Whether `ask_again` has something to ask."""
        return self._is_doubtful

    def mass_staleness_s(self, now_s: float) -> float:
        """How old a live shard's `summary` is at most: since the call was sent that it answered."""
        return now_s - self._known_s if self.is_live else 0.0

    def record_summary(self, summary: ShardSummary, sent_s: float) -> None:
        """Take over what a call sent at `sent_s` answered, unless something newer is known."""
        if summary.incarnation == self.incarnation and summary.version > self.summary.version:
            self.summary = summary
            self._known_s = sent_s

    def record_summary_of_unknown_age(self, summary: ShardSummary) -> None:
        """`record_summary` of an answer to another process, whose clock may be another one."""
        self.record_summary(summary, self._known_s)

    # -- coming and going --------------------------------------------------------------------

    def poll(self, now_s: float) -> None:
        """Read the answer to a ping if it is there, and ping where it is time. Never waits."""
        if self._probe is not None and is_ready(self._probe):
            self._read_probe()
        overdue_s = 0.5 * self._limits.max_mass_staleness_s
        if self._probe is None and (
            now_s - self._known_s >= overdue_s if self.is_live else now_s >= self._next_probe_s
        ):
            self._send_probe(ReplayShard.ping)

    def start(self) -> None:
        """Ask a new process to start as the incarnation that is expected of it."""
        recovery = str(self.recovery) if self.recovery and self.num_lost_lifetime else None
        self._send_probe(ReplayShard.start, self.incarnation, self.alpha, self.settings, recovery)

    def refresh(self) -> None:
        """Wait for a summary of the shard as it is now."""
        self._send_probe(ReplayShard.ping)
        self._read_probe()

    def lose(self, error: BaseException) -> None:
        """A call failed because the shard is gone or out of reach."""
        if self.is_live:
            logger.warning("replay shard %d does not answer: %s", self.index, _first_line(error))
            self._next_probe_s = 0.0
            self._is_doubtful = True
        self.is_live = False

    def ask_again(self) -> None:
        """After `lose`, wait until it is known whether only a message was lost.

        However many pings get lost too, a shard that lives answers one of them. It is left out when
        Ray says that its process has ended, when a new process answers, or when neither is known
        after `shard_timeout_s`.
        """
        deadline = Deadline(self._limits.shard_timeout_s)
        while self._is_doubtful and not self.handle.is_gone and deadline.left_s:
            if self._probe is None:
                self._send_probe(ReplayShard.ping)
            if wait_for_any([self._probe], min(_LOOK_S, deadline.left_s)):
                self._read_probe()
                if self._is_doubtful:
                    time.sleep(min(_PAUSE_S, deadline.left_s))
        self._is_doubtful = False

    def fetch(self, reference: Any, what: str, more_s: float = 0.0) -> Any:
        """What `reference` stands for; raises as `calls.fetch` does.

        Args:
            more_s: How much longer than usual it may take.
        """
        timeout_s = self._limits.shard_timeout_s + more_s
        return fetch(reference, timeout_s, f"replay shard {self.index} to {what}")

    def _send_probe(
        self,
        method: ShardMethod[Arguments],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> None:
        self._probe_sent_s = time.monotonic()
        self._next_probe_s = self._probe_sent_s + self._limits.shard_probe_s
        self._probe = self.handle.call(method, *arguments, **keywords)

    def _read_probe(self) -> None:
        """A shard that answers as expected is live; a new process is to start as expected."""
        probe, self._probe = self._probe, None
        try:
            summary = self.fetch(probe, "answer")
        except LOST as error:
            self.lose(error)
            return
        if summary.incarnation != self.incarnation:
            self.is_live = False
            self._give_up_incarnation()
            self.start()
            return
        self.record_summary(summary, self._probe_sent_s)
        self._is_doubtful = False
        if not self.is_live:
            self.is_live = True
            self._log_recovery(summary)

    def _give_up_incarnation(self) -> None:
        """Count what the present incarnation held as lost, if it was ever started."""
        if self.summary.incarnation != self.incarnation:
            return
        logger.error(
            "replay shard %d lost its %d transitions; it starts again %s",
            self.index,
            self.summary.size,
            "empty" if self.recovery is None else f"with those in {self.recovery}",
        )
        self._is_doubtful = False  # It is known what happened.
        self.num_lost_lifetime += 1
        self.num_transitions_lost_lifetime += self.summary.size
        self._is_new_process = True
        self.expect_incarnation(self.incarnation + 1)

    def _log_recovery(self, summary: ShardSummary) -> None:
        """After a loss, log what was recovered; nothing of a shard that was only slow."""
        if not self._is_new_process:
            return
        if summary.problem:
            logger.error("replay shard %d starts empty: %s", self.index, summary.problem)
        elif self.recovery is not None:
            logger.warning("replay shard %d has %d transitions back", self.index, summary.size)
            self.num_transitions_recovered_lifetime += summary.size
        self._is_new_process = False

    def expect_incarnation(self, incarnation: int) -> None:
        """From now on the shard is `incarnation`, and what is known of the last one is void."""
        self._num_added_before += self.summary.num_added
        self.summary = ShardSummary()
        self.incarnation = incarnation


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
