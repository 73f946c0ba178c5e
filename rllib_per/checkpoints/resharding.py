# SPDX-License-Identifier: MIT
"""The content of K saved buffers, for K' others.

What moves is a *history*: rows that are linked to one another, for windows and stacks are made of
them. One that is still open goes to the buffer where its stream's next fragment will arrive (stream
id modulo K', as in `sharding.streams`), so that it may go on. The others go, oldest first, wherever
most room is left. Rows keep frames, rewards, priorities and masses, so that the distribution over
transitions stays what it was. They get new sequence numbers in the order of their age: how far back
a row is in its buffer, as a fraction of the rows there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllib_per.arrays import Array, Float64s, Int64s
from rllib_per.checkpoints.archive_reader import (
    ArchivedColumn,
    part_folder,
    read_index,
    read_part,
)
from rllib_per.replay.snapshot import EMPTY, LOST, PENDING, STOP, forget_before, pending_from


def read_state(folder: Path, part: int, capacities: Sequence[int]) -> dict[str, Any]:
    """The state for one of several buffers that together take over what was saved.

    Where histories are so long that they don't fit evenly, the oldest rows of a buffer that gets
    too many are dropped, as by eviction. Verify `folder` first. Columns are read when the state is
    loaded.

    Args:
        part: Which of them.
        capacities: Of all of them.
    Raises:
        CheckpointError: A file can't be read, or does not fit.
        ValueError: Together they have another capacity than what was saved, or what was saved is
            of different kinds.
    """
    num_parts, _ = read_index(folder)
    if num_parts == len(capacities):
        return read_part(part_folder(folder, part))
    sources = [_Source(read_part(part_folder(folder, k))) for k in range(num_parts)]
    _check(sources, capacities)
    _end_duplicates(sources, len(capacities))
    return ShardAssignment(sources, _owners(sources, capacities), part).state(capacities)


class _Source:
    """One buffer's rows in the order of their sequence numbers, from the oldest that is left."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.capacity = int(state["spec"]["capacity"])
        written = int(state["written"])
        sequences = np.arange(max(written - self.capacity, 0), written)
        rows = state["rows"][sequences % self.capacity]
        # Only the oldest may be empty: rows that a save did not get to in time.
        num_gone = int(np.argmax(rows["kind"] != EMPTY)) if len(rows) else 0
        self.first = int(sequences[num_gone]) if len(rows) else 0
        self.slots = sequences[num_gone:] % self.capacity
        self.rows = rows[num_gone:].copy()
        # A frame that is gone shows in the row after it.
        cut = self.rows["back"].astype(np.int64) > np.arange(len(self.rows))
        self.rows["back"][cut], self.rows["torn"][cut] = 0, 1
        self.heads = _heads(self.rows["back"].astype(np.int64))
        # 1 is the newest row, whatever the number of rows.
        self.ages: Float64s = (np.arange(len(self.rows)) + 1) / max(len(self.rows), 1)
        streams = state["streams"][state["streams"]["open"] >= self.first]
        self.streams = pending_from(self.first, state["rows"], streams, self.capacity)


def _check(sources: Sequence[_Source], capacities: Sequence[int]) -> None:
    before, now = sum(source.capacity for source in sources), sum(capacities)
    if before != now:
        raise ValueError(
            f"the saved replay buffer has a capacity of {before} rows in {len(sources)} parts, and "
            f"this one {now} in {len(capacities)}: set the capacity to {before}"
        )
    kinds = [{**s.state["spec"], "capacity": 0, "alpha": s.state["alpha"]} for s in sources]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(f"the parts of the saved replay buffer are of different kinds: {kinds}")


def _end_duplicates(sources: Sequence[_Source], num_parts: int) -> None:
    """A stream that has moved is open on two shards: it goes on from the later one only."""
    newest: dict[int, int] = {}
    for source in sources:
        for stream in source.streams:
            stream_id = int(stream["stream_id"])
            newest[stream_id] = max(newest.get(stream_id, 0), int(stream["next_step"]))
    for source in sources:
        goes_on = np.ones(len(source.streams), np.bool_)
        for i, stream in enumerate(source.streams):
            stream_id = int(stream["stream_id"])
            if newest.get(stream_id) == stream["next_step"]:
                del newest[stream_id]
                continue
            goes_on[i] = False
            last = int(stream["open"]) - source.first
            source.rows["kind"][last] = STOP
            own = source.heads == source.heads[last]
            source.rows["kind"][own & (source.rows["kind"] == PENDING)] = LOST
        source.streams = source.streams[goes_on]


def _owners(sources: Sequence[_Source], capacities: Sequence[int]) -> list[Int64s]:
    """For every row of every source the buffer that gets it."""
    num_parts = len(capacities)
    owner_of_head = [np.full(len(source.rows), -1, np.int64) for source in sources]
    used = [0] * num_parts
    finished: list[tuple[float, int, int, int]] = []
    for k, source in enumerate(sources):
        sizes = np.bincount(source.heads, minlength=len(source.rows))
        for stream in source.streams:
            head = source.heads[int(stream["open"]) - source.first]
            home = int(stream["stream_id"]) % num_parts
            owner_of_head[k][head] = home
            used[home] += int(sizes[head])
        heads = np.flatnonzero((sizes > 0) & (owner_of_head[k] < 0))
        finished += [(float(source.ages[h]), k, int(h), int(sizes[h])) for h in heads]
    room = [(used[m] / capacities[m], m) for m in range(num_parts)]
    heapq.heapify(room)
    for _, k, head, size in sorted(finished):
        _, part = room[0]
        owner_of_head[k][head] = part
        used[part] += size
        heapq.heapreplace(room, (used[part] / capacities[part], part))
    return [own[source.heads] for own, source in zip(owner_of_head, sources, strict=True)]


class ShardAssignment:
    """The rows that one of the new buffers gets.

    Args:
        sources: All saved buffers.
        owners: For every row of each the new buffer that gets it.
        part: This one's number.
    """

    def __init__(self, sources: Sequence[_Source], owners: Sequence[Int64s], part: int) -> None:
        self._sources, self._part = sources, part
        positions = [np.flatnonzero(owner == part) for owner in owners]
        self._source = np.repeat(np.arange(len(sources)), [len(rows) for rows in positions])
        self._position = np.concatenate(positions)
        ages = [s.ages[rows] for s, rows in zip(sources, positions, strict=True)]
        order = np.lexsort((self._source, np.concatenate(ages)))
        self._source, self._position = self._source[order], self._position[order]
        # Where each row of a source is now; only read for rows that are here.
        self._new = [np.zeros(len(source.rows), np.int64) for source in sources]
        for k, new in enumerate(self._new):
            new[self._from_source(k, self._position)] = np.flatnonzero(self._source == k)

    def _from_source(self, k: int, values: Int64s) -> Int64s:
        own: Int64s = values[self._source == k]
        return own

    def state(self, capacities: Sequence[int]) -> dict[str, Any]:
        """In the form of `PrioritizedReplayBuffer.state`; capacities are those of all."""
        capacity, written = capacities[self._part], len(self._position)
        slots = np.arange(written) % capacity
        values = self._values(capacity, written)
        rows = self._by_slot(self._rows(), slots)
        first = max(written - capacity, 0)
        rows, streams = forget_before(first, rows, self._streams(len(capacities)), values)
        return {
            **values,
            "rows": rows,
            "streams": streams,
            **{name: self._by_slot(self._gather(name), slots) for name in ("priorities", "masses")},
            **{name: self._column(name, capacity) for name in values["spec"]["columns"]},
        }

    def _by_slot(self, values: Array, slots: Int64s) -> Array:
        """Of rows in one slot the newest stays."""
        newest = len(slots) - min(len(slots), int(slots.max(initial=-1)) + 1)
        out = np.empty(len(slots) - newest, values.dtype)
        out[slots[newest:]] = values[newest:]
        return out

    def _gather(self, name: str) -> Array:
        """An array by slot of the sources, for our rows in their new order."""
        out = np.empty(len(self._position), self._sources[0].state[name].dtype)
        for k, source in enumerate(self._sources):
            slots = source.slots[self._from_source(k, self._position)]
            out[self._source == k] = source.state[name][slots]
        return out

    def _rows(self) -> Array:
        """In their new order, with the new distances between them."""
        out = np.empty(len(self._position), self._sources[0].rows.dtype)
        for k, source in enumerate(self._sources):
            positions = self._from_source(k, self._position)
            rows, new = source.rows[positions], self._new[k]
            here = new[positions]
            back, ahead = rows["back"].astype(np.int64), rows["ahead"].astype(np.int64)
            rows["back"] = np.where(back > 0, here - new[positions - back], 0)
            following = np.minimum(positions + ahead, len(new) - 1)
            rows["ahead"] = np.where(ahead > 0, new[following] - here, 0)
            out[self._source == k] = rows
        return out

    def _streams(self, num_parts: int) -> Array:
        """Those whose open row is here."""
        out = []
        for k, source in enumerate(self._sources):
            for stream in source.streams[source.streams["stream_id"] % num_parts == self._part]:
                moved = stream.copy()
                for name in ("open", "pending")[: 2 if stream["num_pending"] else 1]:
                    moved[name] = self._new[k][int(stream[name]) - source.first]
                out.append(moved)
        return np.array(out, self._sources[0].state["streams"].dtype)

    def _values(self, capacity: int, written: int) -> dict[str, Any]:
        """Counts stay together: the first buffer has those of all."""
        states = [source.state for source in self._sources]
        like = states[self._part % len(states)]
        is_first = self._part == 0
        counts = {
            name: sum(int(state["counts"][name]) for state in states) if is_first else 0
            for name in like["counts"]
        }
        non_finite = sum(int(s["guard"]["num_non_finite_lifetime"]) for s in states)
        return {
            "spec": {**like["spec"], "capacity": capacity},
            "written": written,
            "num_gaps": sum(int(s["num_gaps"]) for s in states) if is_first else 0,
            "alpha": like["alpha"],
            "max_priority": max(float(state["max_priority"]) for state in states),
            "guard": {"num_non_finite_lifetime": non_finite if is_first else 0, "calls": []},
            "rng": None,
            "counts": counts,
        }

    def _column(self, name: str, capacity: int) -> GatheredColumn:
        sources = [source.state[name] for source in self._sources]
        sequences = self._position + np.array([s.first for s in self._sources])[self._source]
        return GatheredColumn(sources, self._source, sequences, capacity)


class GatheredColumn:
    """A column of rows that come from several archived ones.

    Args:
        sources: Those.
        source: (R,) from which of them each row comes.
        sequences: (R,) its sequence number there.
        capacity: Of the ring they go to, in this order.
    """

    def __init__(
        self, sources: Sequence[ArchivedColumn], source: Int64s, sequences: Int64s, capacity: int
    ) -> None:
        self._sources, self._source, self._sequences = sources, source, sequences
        self._capacity = capacity

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, *shape of a row)."""
        return (min(len(self._source), self._capacity), *self._sources[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        return self._sources[0].dtype

    def pieces(self) -> Iterator[tuple[Int64s, Array]]:
        """Slots, and the rows that go there; a segment of a source at a time."""
        oldest = len(self._source) - self._capacity
        for k, source in enumerate(self._sources):
            new = np.flatnonzero(self._source == k)
            new = new[new >= oldest]
            wanted = self._sequences[new]
            order = np.argsort(wanted)
            new, wanted = new[order], wanted[order]
            for first, rows in source.segments():
                low, high = np.searchsorted(wanted, (first, first + len(rows)))
                if high > low:
                    yield new[low:high] % self._capacity, rows[wanted[low:high] - first]


def _heads(back: Int64s) -> Int64s:
    """For each row where its history begins; rows in the order of their sequence numbers.

    Args:
        back: (R,) distance to the row before; 0, or one that leads out, for a beginning.
    Returns:
        (R,) position of the history's first row. O(R log R).
    """
    positions = np.arange(len(back))
    heads = np.where((back > 0) & (back <= positions), positions - back, positions)
    while True:
        further = heads[heads]
        if (further == heads).all():
            return heads
        heads = further
