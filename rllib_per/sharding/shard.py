# SPDX-License-Identifier: MIT
"""One shard of a replay buffer: a plain class, made an actor where it is placed.

A call that is sent twice is done once: the shard remembers its answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from rllib_per.arrays import Array, Float32s, Float64s
from rllib_per.checkpoints.archive import SaveReport
from rllib_per.checkpoints.files import CheckpointError
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.fragment import Fragment, PriorityUpdate, TransitionBatch
from rllib_per.replay.ids import first_id
from rllib_per.replay.snapshot import Snapshot
from rllib_per.sharding.shard_archive import ShardArchive, load_part


class ShardNotStartedError(RuntimeError):
    """The shard's process is new, and the driver has not said yet which incarnation it is."""


@dataclass(frozen=True)
class ShardSummary:
    """The shard at one moment, in numbers; every answer carries it.

    Attributes:
        incarnation: Which of the shard's lives this is; -1 before `start`.
        version: Grows with every call of an incarnation: of two summaries the larger is newer.
        size: N_k, transitions that may be drawn.
        total_mass: M_k, the sum of their masses.
        smallest_mass: The smallest positive one; infinite without any.
        num_added: Transitions that ever became sampleable in this incarnation.
        problem: Why it began empty, though it should have recovered what was saved.
    """

    incarnation: int = -1
    version: int = -1
    size: int = 0
    total_mass: float = 0.0
    smallest_mass: float = float("inf")
    num_added: int = 0
    problem: str = ""


class AddAnswer(NamedTuple):
    """How many transitions became sampleable, and the shard after that."""

    num_added: int
    summary: ShardSummary


class DrawAnswer(NamedTuple):
    """What came of a draw.

    Attributes:
        num_rows: As many as were asked for, or 0 when nothing could be drawn.
        weights: Their importance weights, those of this shard alone, unscaled.
        num_bytes: How large the rows are.
        summary: The shard at the draw.
    """

    num_rows: int
    weights: Float32s
    num_bytes: int
    summary: ShardSummary

    @property
    def largest_weight(self) -> float:
        """The largest of the weights; 0 without any."""
        return float(self.weights.max(initial=0.0))


Answer = TypeVar("Answer")

# A client is never so far ahead of its oldest call without an answer, so a repeated one is known.
CALLS_REMEMBERED = 256
CLIENTS_REMEMBERED = 4096


def is_too_far_ahead(sequence: int, unanswered: Iterable[int]) -> bool:
    """Whether call `sequence` could make the log forget one that may have to be repeated."""
    return sequence - min(unanswered, default=sequence) >= CALLS_REMEMBERED


class CallLog(Generic[Answer]):
    """The answers to each client's last calls, by sequence number.

    Calls may arrive in any order: one that failed on its way is repeated after its successors, of
    which a client makes fewer than `CALLS_REMEMBERED` until then (`is_too_far_ahead`). What is
    remembered is bounded: each client's last numbers, and the clients heard of last.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[int, Answer]] = OrderedDict()
        self.num_repeated = 0

    def find(self, client: str, sequence: int) -> Answer | None:
        """The answer given before, or None for a call that is new."""
        answers = self._clients.get(client)
        answer = answers.get(sequence) if answers is not None else None
        self.num_repeated += answer is not None
        return answer

    def record(self, client: str, sequence: int, answer: Answer) -> None:
        """The call was done, and this was its answer."""
        answers = self._clients.setdefault(client, OrderedDict())
        self._clients.move_to_end(client)
        answers[sequence] = answer
        while next(iter(answers)) <= sequence - CALLS_REMEMBERED:
            answers.popitem(last=False)
        if len(self._clients) > CLIENTS_REMEMBERED:
            self._clients.popitem(last=False)


class ReplayShard:
    """A prioritized replay buffer that can be called over a network that loses answers.

    Calls that change it carry the client's name and a number that the client counts up: one that is
    sent twice is done once. A new process does nothing before `start` tells it its incarnation, for
    only the driver knows how many there were; ids of another incarnation are stale. One owner at a
    time calls it, as an actor of one thread does.

    Args:
        shard: Its number, 0 to 255.
        settings: Keyword arguments of the buffer; every shard's own seed comes from `seed`, its
            number and its incarnation. None: `start` will bring them.
        buffer_class: What kind of buffer.
    """

    def __init__(
        self,
        shard: int,
        settings: Mapping[str, Any] | None,
        buffer_class: type[PrioritizedReplayBuffer] = PrioritizedReplayBuffer,
    ) -> None:
        self._shard = shard
        self._buffer_class: Any = buffer_class
        self._settings = dict(settings or {})
        self._buffer_or_none: PrioritizedReplayBuffer | None = None
        self._incarnation = -1
        self._version = 0
        self._num_added = 0
        self._problem = ""
        self._adds: CallLog[AddAnswer] = CallLog()
        self._updates: CallLog[ShardSummary] = CallLog()
        self._archive = ShardArchive()

    def start(
        self,
        incarnation: int,
        alpha: float | None = None,
        settings: Mapping[str, Any] | None = None,
        recovery: str | None = None,
    ) -> ShardSummary:
        """Begin an incarnation with an empty buffer; nothing happens if it is this one already.

        Args:
            incarnation: A number that this shard never had before.
            alpha: α, if it is no longer that of the settings.
            settings: Of the buffer, where they were not known when the shard was placed.
            recovery: The saved replay buffer, out of which to take this shard's part; where that
                can't be done, the buffer stays empty, and the answer says why.
        Raises:
            ValueError: Shard number or incarnation is out of range, or the settings are refused.
        """
        if incarnation != self._incarnation:
            self._settings = dict(settings or self._settings)
            seed = self._settings.get("seed")
            if seed is not None:
                words = np.random.SeedSequence([seed, self._shard, incarnation]).generate_state(1)
                seed = int(words[0])
            self._buffer_or_none = None  # There may be no room for two.
            self._buffer_or_none = self._buffer_class(
                **self._settings | {"seed": seed, "first_id": first_id(self._shard, incarnation)}
            )
            self._problem = "" if recovery is None else self._recover(Path(recovery))
            if alpha is not None:
                self._buffer.alpha = alpha
            self._incarnation = incarnation
            self._version = self._num_added = 0
            self._adds, self._updates = CallLog(), CallLog()
        return self.ping()

    def _recover(self, folder: Path) -> str:
        """Load this shard's part of a saved replay buffer; why not, if it can't be done."""
        try:
            load_part(self._buffer, folder, self._shard)
        except (CheckpointError, OSError, ValueError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def ping(self) -> ShardSummary:
        """The shard's present state; before `start` that of incarnation -1."""
        if self._buffer_or_none is None:
            return ShardSummary()
        buffer = self._buffer_or_none
        self._version += 1
        return ShardSummary(
            self._incarnation,
            self._version,
            len(buffer),
            buffer.total_mass,
            buffer.smallest_mass,
            self._num_added,
            self._problem,
        )

    def add(self, client: str, sequence: int, fragment: Fragment) -> AddAnswer:
        """PrioritizedReplayBuffer.add, once per client and sequence number."""
        answer = self._adds.find(client, sequence)
        if answer is None:
            num_added = self._buffer.add(fragment)
            self._num_added += num_added
            answer = AddAnswer(num_added, self.ping())
            self._adds.record(client, sequence, answer)
        return answer

    def update_priorities(self, client: str, sequence: int, update: PriorityUpdate) -> ShardSummary:
        """PrioritizedReplayBuffer.update_priorities, once per client and sequence number."""
        answer = self._updates.find(client, sequence)
        if answer is None:
            self._buffer.update_priorities(update.ids, update.td_errors)
            answer = self.ping()
            self._updates.record(client, sequence, answer)
        return answer

    def draw(
        self, fractions: Float64s, block_sizes: Sequence[int], beta: float
    ) -> tuple[DrawAnswer | TransitionBatch | None, ...]:
        """The rows at given places of the mass line.

        Args:
            fractions: (B_k,) in [0, 1), places as fractions of the shard's present mass.
            block_sizes: Where to cut the rows; together B_k.
            beta: β of their importance weights, which are those of this shard alone, unscaled.
        Returns:
            The answer, and the blocks; without anything to draw these are None.
        """
        buffer, summary = self._buffer, self.ping()
        if not summary.total_mass > 0.0:
            return DrawAnswer(0, np.empty(0, np.float32), 0, summary), *[None] * len(block_sizes)
        batch = buffer.draw(fractions, beta)
        answer = DrawAnswer(len(batch), batch.importance_weights, batch.num_bytes, summary)
        ends = np.cumsum(block_sizes)
        blocks = [
            batch.slice_rows(int(end) - size, int(end))
            for size, end in zip(block_sizes, ends, strict=True)
        ]
        return answer, *blocks

    def draw_many(
        self, draws: Sequence[tuple[Float64s, Sequence[int]]], beta: float
    ) -> tuple[DrawAnswer | TransitionBatch | None, ...]:
        """`draw` for each (fractions, block_sizes), one after the other: a call costs more."""
        return tuple(
            result
            for fractions, block_sizes in draws
            for result in self.draw(fractions, block_sizes, beta)
        )

    def set_alpha(self, alpha: float) -> ShardSummary:
        """Give all transitions new masses, exactly."""
        self._buffer.alpha = alpha
        return self.ping()

    def metrics(self) -> dict[str, float]:
        """The buffer's metrics, and how many calls came twice."""
        repeated = self._adds.num_repeated + self._updates.num_repeated
        return self._buffer.metrics() | {"num_repeated_calls_lifetime": repeated}

    def state(self) -> dict[str, Any]:
        """The buffer's state."""
        return self._buffer.state()

    def state_arrays(self) -> tuple[str, ...]:
        """Which entries of the state are arrays."""
        return self._buffer.state_arrays

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise what `load_state` would."""
        self._buffer.check_state(state)

    def load_state(self, state: dict[str, Any]) -> ShardSummary:
        """Restore the buffer's state; the shard stays this incarnation."""
        self._buffer.load_state(state)
        return self.ping()

    def start_save(self, folder: str, witness: str) -> bool:
        """`ShardArchive.start_save`: calls are answered while it is saved."""
        return self._archive.start_save(self._buffer, folder, witness)

    def save_report(self) -> SaveReport | None:
        """`ShardArchive.save_report`."""
        return self._archive.save_report()

    def snapshot(self) -> Snapshot:
        """`PrioritizedReplayBuffer.snapshot`."""
        return self._buffer.snapshot()

    def copy_rows(self, name: str, first: int, stop: int) -> tuple[int, Array]:
        """`PrioritizedReplayBuffer.copy_rows`."""
        return self._buffer.copy_rows(name, first, stop)

    def receive(self, name: str, data: bytes) -> None:
        """`ShardArchive.receive`."""
        self._archive.receive(name, data)

    def prepare_load(
        self, folder: str, witness: str, part: int, capacities: Sequence[int]
    ) -> float | None:
        """`ShardArchive.prepare`."""
        return self._archive.prepare(self._buffer, folder, witness, part, capacities)

    def load_prepared(self) -> ShardSummary:
        """`ShardArchive.load`; the shard stays this incarnation."""
        self._archive.load(self._buffer)
        return self.ping()

    @property
    def _buffer(self) -> PrioritizedReplayBuffer:
        if self._buffer_or_none is None:
            raise ShardNotStartedError(
                f"replay shard {self._shard} has lost its content and is not started again yet"
            )
        return self._buffer_or_none
