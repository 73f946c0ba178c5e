# SPDX-License-Identifier: MIT
"""Fragments on their way into the shards, from an env runner or the driver."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rllib_per.replay.columns import check_fragment
from rllib_per.replay.fragment import Fragment
from rllib_per.settings.replay import ShardLimits
from rllib_per.sharding.calls import (
    LOST,
    Deadline,
    ShardHandle,
    all_among,
    fetch,
    references_ready,
    wait_for_any,
)
from rllib_per.sharding.shard import AddAnswer, ReplayShard, is_too_far_ahead
from rllib_per.sharding.streams import StreamRouter

_PAUSE_S = 0.02
_PING_S = 1.0


@dataclass
class _Sent:
    """A piece on its way to a shard."""

    shard: int
    sequence: int
    piece: Fragment
    num_bytes: int
    sent_s: float
    answer: Any


class FragmentWriter:
    """Adds fragments to the shards that their streams live on.

    A call that failed is sent again under its number if its shard still answers, and the shard does
    not do it twice. If the shard is gone, the piece goes to another one, and so do its streams.
    Belongs to one client. Can be pickled before its first use, and every copy is a client of its
    own: a process that starts again must not be taken for the one before it.

    Args:
        shards: The handle of each.
        client: What to call the client in messages.
        limits: What may be under way.
    """

    def __init__(self, shards: Sequence[ShardHandle], client: str, limits: ShardLimits) -> None:
        self._shards = list(shards)
        self._client = client
        self._limits = limits
        self._session = ""
        self._router = StreamRouter(len(shards))
        self._reached: set[int] = set()  # Shards that have answered since they were out of reach.
        self._in_flight: list[_Sent] = []
        self._sequence = 0
        self._next_probe_s = 0.0
        self._answers: list[tuple[int, AddAnswer, float]] = []
        self.num_bytes_in_flight = 0
        self.num_resent_lifetime = 0

    @property
    def num_calls_in_flight(self) -> int:
        """Pieces that are not answered yet."""
        return len(self._in_flight)

    @property
    def num_streams_away(self) -> int:
        """Streams that are not on their home shard."""
        return self._router.num_away

    def push(self, fragment: Fragment) -> None:
        """Send `fragment`; waits only while too much is under way.

        Raises:
            TimeoutError: Nothing was answered for `shard_timeout_s`, or no shard was in reach.
            ValueError: The fragment is refused, and no shard has changed; or a shard refused one,
                this or an earlier one, for want of room or because of a given priority: then other
                shards have their streams' rows.
        """
        fragment = check_fragment(fragment)
        self._look_for_lost_shards()
        for shard, piece in self._route(fragment):
            self._make_room(shard, piece.num_bytes)
            self._send(shard, piece)
        self._harvest()

    def add(self, fragment: Fragment) -> int:
        """Send `fragment` and wait for it; how many transitions became sampleable by it."""
        before = len(self._answers)
        self.push(fragment)
        self.flush()
        return sum(answer.num_added for _, answer, _ in self._answers[before:])

    def flush(self) -> None:
        """Wait until everything is answered."""
        deadline = Deadline(self._limits.shard_timeout_s)
        while self._in_flight:
            self._wait(self._in_flight, deadline)

    def take_answers(self) -> list[tuple[int, AddAnswer, float]]:
        """(shard, its answer, when the call was sent) of every piece answered since last time."""
        answers, self._answers = self._answers, []
        return answers

    # -- sending -----------------------------------------------------------------------------

    def _route(self, fragment: Fragment) -> list[tuple[int, Fragment]]:
        deadline = Deadline(self._limits.shard_timeout_s)
        while self._router.all_lost:
            if not deadline.left_s:
                raise TimeoutError(
                    f"{self._client} waited {deadline.timeout_s:g} s for any of "
                    f"{len(self._shards)} replay shards to come back; look at their processes"
                )
            time.sleep(_PAUSE_S)
            self._next_probe_s = 0.0
            self._look_for_lost_shards()
        return self._router.route(fragment)

    def _send(self, shard: int, piece: Fragment, sequence: int | None = None) -> None:
        if sequence is None:
            sequence, self._sequence = self._sequence, self._sequence + 1
        self._session = self._session or f"{self._client}-{uuid.uuid4().hex}"
        answer = self._shards[shard].call(ReplayShard.add, self._session, sequence, piece)
        sent = _Sent(shard, sequence, piece, piece.num_bytes, time.monotonic(), answer)
        self._in_flight.append(sent)
        self.num_bytes_in_flight += sent.num_bytes

    def _make_room(self, shard: int, num_bytes: int) -> None:
        deadline = Deadline(self._limits.shard_timeout_s)
        while True:
            own = [sent for sent in self._in_flight if sent.shard == shard]
            if is_too_far_ahead(self._sequence, (sent.sequence for sent in own)):
                self._wait([min(own, key=lambda sent: sent.sequence)], deadline)
            elif len(own) >= self._max_calls_to(shard):
                self._wait(own, deadline)
            elif (
                self._in_flight
                and self.num_bytes_in_flight + num_bytes > self._limits.max_bytes_in_flight
            ):
                self._wait(self._in_flight, deadline)
            else:
                return

    def _max_calls_to(self, shard: int) -> int:
        """Until a connection stands, calls may overtake each other, and the stream has gaps."""
        return self._limits.max_calls_in_flight if shard in self._reached else 1

    def _wait(self, awaited: Sequence[_Sent], deadline: Deadline) -> None:
        if not wait_for_any([sent.answer for sent in awaited], deadline.left_s):
            shards = sorted({sent.shard for sent in awaited})
            raise TimeoutError(
                f"{self._client} waited {deadline.timeout_s:g} s for replay shards {shards} to add "
                f"{len(awaited)} fragments ({self.num_bytes_in_flight} bytes under way); they are "
                "overloaded or out of reach: use more shards, or raise shard_timeout_s"
            )
        self._harvest()

    # -- answers -----------------------------------------------------------------------------

    def _harvest(self) -> None:
        ready = references_ready(sent.answer for sent in self._in_flight)
        for sent in [sent for sent in self._in_flight if all_among([sent.answer], ready)]:
            self._in_flight.remove(sent)
            self.num_bytes_in_flight -= sent.num_bytes
            try:
                answer = fetch(
                    sent.answer,
                    self._limits.shard_timeout_s,
                    f"replay shard {sent.shard} to add a fragment",
                )
            except LOST:
                self._resend(sent)
            else:
                self._reached.add(sent.shard)
                self._answers.append((sent.shard, answer, sent.sent_s))

    def _resend(self, sent: _Sent) -> None:
        """Once more to the same shard if it is there, else to those its streams move to."""
        self.num_resent_lifetime += 1
        self._reached.discard(sent.shard)
        if not self._router.is_lost(sent.shard) and self._answers_again(sent.shard):
            self._send(sent.shard, sent.piece, sent.sequence)
            return
        self._router.lose(sent.shard)
        for shard, piece in self._route(sent.piece):
            self._send(shard, piece)

    def _answers_again(self, shard: int) -> bool:
        """Whether only a message was lost; else its process is gone, or was not heard of in time.

        Lost messages move no stream: the shard may have the rows, and another would have them too.
        """
        deadline = Deadline(self._limits.shard_timeout_s)
        while deadline.left_s and not self._shards[shard].is_gone:
            incarnation = self._ping(shard, min(_PING_S, deadline.left_s))
            if incarnation is not None:
                return incarnation >= 0
            time.sleep(min(_PAUSE_S, deadline.left_s))
        return False

    def _is_started(self, shard: int, timeout_s: float) -> bool:
        incarnation = self._ping(shard, timeout_s)
        return incarnation is not None and incarnation >= 0

    def _ping(self, shard: int, timeout_s: float) -> int | None:
        """The shard's incarnation, -1 before it is started; None: no answer."""
        what = f"replay shard {shard} to answer"
        try:
            answer = self._shards[shard].call(ReplayShard.ping)
            return int(fetch(answer, timeout_s, what).incarnation)
        except (TimeoutError, *LOST):
            return None

    def _look_for_lost_shards(self) -> None:
        now_s = time.monotonic()
        if not self._router.num_lost or now_s < self._next_probe_s:
            return
        self._next_probe_s = now_s + self._limits.shard_probe_s
        for shard in range(len(self._shards)):
            if self._router.is_lost(shard) and self._is_started(shard, self._limits.shard_probe_s):
                self._router.find(shard)
