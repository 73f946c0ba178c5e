# SPDX-License-Identifier: MIT
"""What the driver knows of one shard, and its calls that are on their way there."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllib_per.replay.fragment import Float32s, Int64s, PriorityUpdate
from rllib_per.sharding.call_log import is_too_far_ahead
from rllib_per.sharding.handles import LOST, Deadline, ShardHandle, fetch, is_ready, wait_for_any
from rllib_per.sharding.lags import PriorityLag
from rllib_per.sharding.limits import ShardLimits
from rllib_per.sharding.priority_outbox import PriorityOutbox
from rllib_per.sharding.shard import ShardSummary

logger = logging.getLogger(__name__)

DRIVER = "driver"

_PAUSE_S = 0.02
_LOOK_S = 0.1  # How often Ray is asked about the process of a shard that does not answer.


@dataclass
class _SentUpdate:
    """A priority update on its way; it may be sent again under its number."""

    update: PriorityUpdate
    sent_s: float
    asked_at: int | None
    handle: Any


class ShardLink:
    """One shard as the driver sees it.

    A shard whose call fails is *doubtful* until it is known whether only a message was lost: no
    draw goes on without it meanwhile (`ask_again`). If it answers as the same incarnation, nothing
    was lost but time, and updates of uncertain fate are sent again. If its process has ended it is
    *lost*, and takes part in no draw until a new one has begun the next incarnation: empty, or with
    what was saved of the last one.

    Attributes:
        index: The shard's number.
        handle: How to call it.
        incarnation: The incarnation that ids of this shard must have.
        summary: The newest that is known of it.
        is_live: Whether its last call was answered.
        alpha: The α that a new process is to begin with; None: that of its settings.
        settings: Those of its buffer, where it was placed without; None: it has them.
        recovery: The saved replay buffer from which a lost shard takes its part; None: it begins
            empty.
        num_lost_lifetime: How often its content was lost.
        num_transitions_lost_lifetime: How many transitions that were.
        num_transitions_recovered_lifetime: How many came back out of what was saved.
        num_calls_lifetime, num_bytes_lifetime: Priority updates sent.
        num_stale_lifetime: TD errors dropped here, because their incarnation is gone.
    """

    def __init__(
        self,
        index: int,
        handle: ShardHandle,
        limits: ShardLimits,
        lag: PriorityLag | None = None,
    ) -> None:
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
        self.num_calls_lifetime = 0
        self.num_bytes_lifetime = 0
        self.num_stale_lifetime = 0
        self._limits = limits
        self._lag = lag or PriorityLag()
        self._outbox = PriorityOutbox(limits.priority_flush_updates, limits.priority_flush_s)
        self._in_flight: dict[int, _SentUpdate] = {}
        self._uncertain: dict[int, _SentUpdate] = {}
        self._sequence = 0
        self._known_s = 0.0
        self._num_added_before = 0
        self._probe: Any = None
        self._probe_sent_s = 0.0
        self._next_probe_s = 0.0
        self._is_doubtful = False
        self._is_fresh = False

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

    @property
    def num_updates_in_flight(self) -> int:
        """Priority updates that are not answered yet."""
        return len(self._in_flight)

    @property
    def owes_updates(self) -> bool:
        """Whether TD errors were taken in that the shard is not known to have, or to have lost."""
        return bool(self._in_flight or self._uncertain or len(self._outbox))

    def picture_age_s(self, now_s: float) -> float:
        """How old the picture of a live shard is at most: since that call was sent."""
        return now_s - self._known_s if self.is_live else 0.0

    def priority_age_s(self, now_s: float) -> float:
        """How long the oldest TD error has waited here."""
        return self._outbox.age_s(now_s)

    def note(self, summary: ShardSummary, sent_s: float) -> None:
        """Take over what a call sent at `sent_s` answered, unless something newer is known."""
        if summary.incarnation == self.incarnation and summary.version > self.summary.version:
            self.summary = summary
            self._known_s = sent_s

    def note_unclocked(self, summary: ShardSummary) -> None:
        """`note`, when it is not known here how old the answer is."""
        self.note(summary, self._known_s)

    # -- priorities --------------------------------------------------------------------------

    def put(
        self, ids: Int64s, td_errors: Float32s, now_s: float, asked_at: int | None = None
    ) -> None:
        """TD errors for this shard's transitions, to be sent some time soon."""
        self._outbox.put(ids, td_errors, now_s, asked_at)

    def send_priorities(self, now_s: float, *, at_once: bool = False) -> None:
        """Send what is due, unless too much is under way; it goes on coalescing then."""
        if not self.is_live or not (at_once or self._outbox.is_due(now_s)):
            return
        unanswered = self._in_flight.keys() | self._uncertain.keys()
        if len(self._in_flight) >= self._limits.max_calls_in_flight or is_too_far_ahead(
            self._sequence, unanswered
        ):
            return
        asked_at, update = self._outbox.asked_at, self._outbox.pop()
        if update is not None:
            self._send(self._sequence, update, now_s, asked_at)
            self._sequence += 1

    def _send(
        self, sequence: int, update: PriorityUpdate, now_s: float, asked_at: int | None
    ) -> None:
        self.num_calls_lifetime += 1
        self.num_bytes_lifetime += update.ids.nbytes + update.td_errors.nbytes
        handle = self.handle.call(
            "update_priorities", DRIVER, sequence, update.ids, update.td_errors
        )
        self._in_flight[sequence] = _SentUpdate(update, now_s, asked_at, handle)

    def updates_in_flight(self) -> list[Any]:
        """Handles of the priority updates under way."""
        return [sent.handle for sent in self._in_flight.values()]

    # -- coming and going --------------------------------------------------------------------

    def tend(self, now_s: float) -> None:
        """Read the answers that are there, and ask for what is needed soon. Never waits.

        Raises:
            Exception: What the shard raised at a priority update, such as TrainingDivergedError.
        """
        for sequence, sent in list(self._in_flight.items()):
            if is_ready(sent.handle):
                del self._in_flight[sequence]
                self._read_update(sequence, sent)
        if self._probe is not None and is_ready(self._probe):
            self._read_probe()
        overdue_s = 0.5 * self._limits.max_picture_age_s
        if self._probe is None and (
            now_s - self._known_s >= overdue_s if self.is_live else now_s >= self._next_probe_s
        ):
            self._send_probe("ping")

    def start(self) -> None:
        """Ask a new process to begin as the incarnation that is expected of it."""
        recovery = str(self.recovery) if self.recovery and self.num_lost_lifetime else None
        self._send_probe("start", self.incarnation, self.alpha, self.settings, recovery)

    def refresh(self) -> None:
        """Wait for a picture of the shard as it is now."""
        self._send_probe("ping")
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
                self._send_probe("ping")
            if wait_for_any([self._probe], min(_LOOK_S, deadline.left_s)):
                self._read_probe()
                if self._is_doubtful:
                    time.sleep(min(_PAUSE_S, deadline.left_s))
        self._is_doubtful = False

    def fetch(self, handle: Any, what: str, more_s: float = 0.0) -> Any:
        """`handle`'s value; raises as `handles.fetch` does.

        Args:
            more_s: How much longer than usual it may take.
        """
        timeout_s = self._limits.shard_timeout_s + more_s
        return fetch(handle, timeout_s, f"replay shard {self.index} to {what}")

    def _read_update(self, sequence: int, sent: _SentUpdate) -> None:
        try:
            self.note(self.fetch(sent.handle, "take priorities"), sent.sent_s)
        except LOST as error:
            self._uncertain[sequence] = sent
            self.lose(error)
        else:
            self._lag.confirm(sent.asked_at)

    def _send_probe(self, method: str, *arguments: Any) -> None:
        self._probe_sent_s = time.monotonic()
        self._next_probe_s = self._probe_sent_s + self._limits.shard_probe_s
        self._probe = self.handle.call(method, *arguments)

    def _read_probe(self) -> None:
        """Whoever answers as the expected incarnation is live; a new process is to start as it."""
        probe, self._probe = self._probe, None
        try:
            summary = self.fetch(probe, "answer")
        except LOST as error:
            self.lose(error)
            return
        if summary.incarnation != self.incarnation:
            self.is_live = False
            self._bury()
            self.start()
            return
        self.note(summary, self._probe_sent_s)
        self._is_doubtful = False
        if not self.is_live:
            self.is_live = True
            self._tell_what_is_back(summary)
            for sequence, sent in self._uncertain.items():
                self._send(sequence, sent.update, self._probe_sent_s, sent.asked_at)
            self._uncertain.clear()

    def _bury(self) -> None:
        """Give up the present incarnation and all that was meant for it, if it ever began."""
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
        self._is_fresh = True
        self.begin(self.incarnation + 1)

    def _tell_what_is_back(self, summary: ShardSummary) -> None:
        """After a loss, what came of the recovery; says nothing of a shard that was only slow."""
        if not self._is_fresh:
            return
        if summary.problem:
            logger.error("replay shard %d starts empty: %s", self.index, summary.problem)
        elif self.recovery is not None:
            logger.warning("replay shard %d has %d transitions back", self.index, summary.size)
            self.num_transitions_recovered_lifetime += summary.size
        self._is_fresh = False

    def begin(self, incarnation: int) -> None:
        """From now on the shard is `incarnation`; what was meant for the last one is stale."""
        waiting = self._outbox.pop()
        dropped = [sent.update for sent in self._uncertain.values()]
        dropped += [] if waiting is None else [waiting]
        self.num_stale_lifetime += sum(len(update.ids) for update in dropped)
        self._uncertain.clear()
        self._num_added_before += self.summary.num_added
        self.summary = ShardSummary()
        self.incarnation = incarnation


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
