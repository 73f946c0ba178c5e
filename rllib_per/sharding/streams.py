# SPDX-License-Identifier: MIT
"""Which shard an environment stream lives on, and fragments cut accordingly.

A stream stays with its shard, because windows and frame stacks are made of its neighbouring rows.
It moves at once when its shard is lost, which the shard it moves to sees as a beginning, and moves
home again only where its environment resets itself, so that nothing is cut for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rllib_per.arrays import Int64s
from rllib_per.replay.fragment import Fragment


class StreamRouter:
    """Cuts fragments into one piece per shard.

    A stream's home is its id modulo the number of shards: the same for every client, and even for
    the consecutive ids that env runners give.
    """

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._lost: set[int] = set()
        self._away: dict[int, int] = {}  # stream id -> shard, of streams that are not at home

    @property
    def num_away(self) -> int:
        """Streams that are not on their home shard."""
        return len(self._away)

    @property
    def num_lost(self) -> int:
        """Shards that are lost."""
        return len(self._lost)

    @property
    def all_lost(self) -> bool:
        """Whether no shard is left."""
        return self.num_lost == self._num_shards

    def lose(self, shard: int) -> None:
        """Route nothing to `shard` until it is found."""
        self._lost.add(shard)

    def find(self, shard: int) -> None:
        """`shard` takes streams again."""
        self._lost.discard(shard)

    def is_lost(self, shard: int) -> bool:
        """Whether `shard` is lost."""
        return shard in self._lost

    def route(self, fragment: Fragment) -> list[tuple[int, Fragment]]:
        """Every row of `fragment`, in pieces for one shard each; in order of time per stream.

        Raises:
            RuntimeError: All shards are lost.
        """
        homes = fragment.stream_ids % self._num_shards
        if not self._lost and not self._away:
            return list(_by_shard(fragment, homes))
        if self.all_lost:
            raise RuntimeError(f"all {self._num_shards} replay shards are lost")
        before = np.array([self._shard_of(int(s)) for s in fragment.stream_ids], np.int64)
        pieces: list[tuple[int, Fragment]] = []
        returns = np.array(
            [
                int(stream) in self._away and int(home) not in self._lost and bool(resets.any())
                for stream, home, resets in zip(
                    fragment.stream_ids, homes, fragment.reset.T, strict=True
                )
            ]
        )
        pieces += _by_shard(fragment.select_streams(np.flatnonzero(~returns)), before[~returns])
        for i in np.flatnonzero(returns):
            column = fragment.select_streams(np.array([i]))
            row = int(np.argmax(column.reset[:, 0]))
            if row:
                pieces.append((int(before[i]), column.slice_rows(0, row)))
            pieces.append((int(homes[i]), column.slice_rows(row, column.reset.shape[0])))
            del self._away[int(fragment.stream_ids[i])]
        return pieces

    def _shard_of(self, stream: int) -> int:
        """Where the stream goes on; it is moved if it can't stay where it is."""
        home = stream % self._num_shards
        shard = self._away.get(stream, home)
        if shard in self._lost:
            live = [k for k in range(self._num_shards) if k not in self._lost]
            # The streams of one lost shard spread over all that are left.
            shard = live[stream // self._num_shards % len(live)]
            self._away[stream] = shard
        if shard == home:
            self._away.pop(stream, None)
        return shard


def _by_shard(fragment: Fragment, shards: Int64s) -> Iterator[tuple[int, Fragment]]:
    present = np.unique(shards)
    if len(present) == 1:
        yield int(present[0]), fragment
        return
    for shard in present:
        yield int(shard), fragment.select_streams(np.flatnonzero(shards == shard))
