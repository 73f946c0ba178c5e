# SPDX-License-Identifier: MIT
"""Which episodes a buffer holds, how far they have come, and their infos if they are kept."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per.arrays import Array, Int64s

EPISODE = "episode"
T = "t"


@dataclass
class _Entry:
    id: str
    length: int = 0
    last_row: int = 0
    # Of the steps from `first_info` on, the newest one's observation included.
    infos: list[dict[str, Any]] = field(default_factory=list)
    first_info: int = 0


class HeldEpisodes:
    """Numbers the episodes, so that every row can say which one, and which step of it, it is.

    An episode is forgotten once `capacity` further rows have been written. What follows a lost
    chunk is entered as an episode of its own, so steps and infos have no holes. O(1) per chunk.
    """

    def __init__(self, capacity: int, *, keeps_infos: bool = False) -> None:
        self.num_evicted = 0
        self.num_steps_added = 0
        self._capacity = capacity
        self._keeps_infos = keeps_infos
        self._num_rows = 0
        self._num_begun = 0
        self._dropped_infos = False
        # By number; the one written to longest ago first.
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._ongoing: dict[str, int] = {}

    def __len__(self) -> int:
        """Episodes of which at least one step is kept."""
        return len(self._entries)

    @property
    def num_begun(self) -> int:
        """Episodes ever entered."""
        return self._num_begun

    def enter(self, chunk: SingleAgentEpisode) -> dict[str, Array]:
        """Enter a chunk; the number of its episode and the steps, (its length,) each."""
        size = len(chunk)
        number = self._ongoing.get(chunk.id_)
        if number is None or self._entries[number].length != chunk.t_started:
            number = self._begin(chunk)
        entry = self._entries[number]
        self._entries.move_to_end(number)
        self._num_rows += size
        self.num_steps_added += size
        entry.length, entry.last_row = chunk.t, self._num_rows
        self._note_infos(entry, chunk)
        if chunk.is_done:
            del self._ongoing[chunk.id_]
        self._forget()
        return {EPISODE: np.full(size, number), T: np.arange(chunk.t_started, chunk.t)}

    def steps_left(self, numbers: Int64s, t: Int64s) -> Int64s:
        """(B,) how many steps there are from step `t` of each episode on."""
        return np.array([self._entries[n].length for n in numbers.tolist()], np.int64) - t

    def infos(self, numbers: Int64s, t: Int64s, num_steps: Int64s) -> list[list[dict[str, Any]]]:
        """The infos of step t and of the one `num_steps` later, for each row.

        Raises:
            ValueError: They were not kept.
        """
        if self._dropped_infos:
            raise ValueError(
                "include_infos needs infos that were kept, but these were not: set "
                '"keep_infos": True in replay_buffer_config'
            )
        if not self._keeps_infos:
            return [[{}, {}] for _ in numbers]
        pairs = []
        for number, start, k in zip(numbers.tolist(), t.tolist(), num_steps.tolist(), strict=True):
            entry = self._entries[number]
            first = start - entry.first_info
            pairs.append([entry.infos[first], entry.infos[first + k]])
        return pairs

    def state(self) -> dict[str, Any]:
        """What a pickle or msgpack can hold."""
        entries = [
            [number, e.id, e.length, e.last_row, e.first_info, list(e.infos)]
            for number, e in self._entries.items()
        ]
        return {
            "num_evicted": self.num_evicted,
            "num_steps_added": self.num_steps_added,
            "num_rows": self._num_rows,
            "num_begun": self._num_begun,
            "dropped_infos": self._dropped_infos,
            "entries": entries,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave; what comes now are new episodes."""
        self.num_evicted = state["num_evicted"]
        self.num_steps_added = state["num_steps_added"]
        self._num_rows = state["num_rows"]
        self._num_begun = state["num_begun"]
        self._dropped_infos = state["dropped_infos"]
        self._ongoing = {}
        self._entries = OrderedDict(
            (number, _Entry(id_, length, last_row, infos=list(infos), first_info=first_info))
            for number, id_, length, last_row, first_info, infos in state["entries"]
        )

    def _begin(self, chunk: SingleAgentEpisode) -> int:
        number = self._num_begun
        self._num_begun += 1
        self._num_rows += 1  # for its last observation
        self._ongoing[chunk.id_] = number
        self._entries[number] = _Entry(chunk.id_, first_info=chunk.t_started)
        return number

    def _note_infos(self, entry: _Entry, chunk: SingleAgentEpisode) -> None:
        if not self._keeps_infos:
            self._dropped_infos = self._dropped_infos or any(chunk.get_infos())
            return
        # A chunk begins with the info that the one before ended with.
        del entry.infos[chunk.t_started - entry.first_info :]
        entry.infos += chunk.get_infos()
        surplus = len(entry.infos) - 2 * self._capacity
        if surplus > 0:
            del entry.infos[: surplus + self._capacity]
            entry.first_info += surplus + self._capacity

    def _forget(self) -> None:
        while True:
            number, entry = next(iter(self._entries.items()))
            if entry.last_row > self._num_rows - self._capacity:
                return
            del self._entries[number]
            if self._ongoing.get(entry.id) == number:  # Not of what followed a gap.
                del self._ongoing[entry.id]
            self.num_evicted += 1
