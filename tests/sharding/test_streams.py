# SPDX-License-Identifier: MIT
"""A stream's rows all arrive, in order, each on the one shard that the stream is on."""

import numpy as np
import pytest

from rllib_per.sharding.streams import StreamRouter
from tests.support.items import fragment, side_by_side


def rows(stream_ids, step=0, num_rows=4, resets=None):
    """A fragment in which every row's item says its stream and step."""
    resets = resets or {}
    return side_by_side(
        [
            fragment(
                s,
                [100 * s + step + t for t in range(num_rows)],
                np.ones(num_rows),
                first_step=step,
                reset=resets.get(s),
            )
            for s in stream_ids
        ]
    )


def where(pieces):
    """(stream, item) -> shard, of every row of the pieces."""
    found = {}
    for shard, piece in pieces:
        for i, stream in enumerate(piece.stream_ids):
            assert piece.obs.shape[0] == piece.actions.shape[0] + 1
            for t, item in enumerate(piece.actions[:, i]):
                assert piece.first_step[i] + t == item - 100 * stream
                assert piece.obs[t, i, 0] == item
                assert (int(stream), int(item)) not in found
                found[int(stream), int(item)] = shard
    return found


def test_a_fragment_is_cut_into_the_columns_of_each_shard():
    found = where(StreamRouter(3).route(rows(range(7))))
    assert len(found) == 7 * 4
    assert all(shard == stream % 3 for (stream, _), shard in found.items())


def test_a_fragment_for_one_shard_is_passed_on_as_it_is():
    whole = rows([1, 4, 7])
    ((shard, piece),) = StreamRouter(3).route(whole)
    assert shard == 1
    assert piece is whole


def test_streams_of_a_lost_shard_move_at_once_and_spread_over_the_others():
    router = StreamRouter(3)
    router.lose(1)
    found = where(router.route(rows(range(9))))
    assert len(found) == 9 * 4
    assert {shard for (stream, _), shard in found.items() if stream % 3 == 1} == {0, 2}
    assert all(shard == s % 3 for (s, _), shard in found.items() if s % 3 != 1)
    assert router.num_away == 3


def test_a_stream_that_moved_stays_until_it_resets_and_then_goes_home_from_that_row_on():
    router = StreamRouter(2)
    router.lose(1)
    router.route(rows([1, 3], step=0))
    router.find(1)
    assert set(where(router.route(rows([1, 3], step=4))).values()) == {0}
    found = where(router.route(rows([1, 3], step=8, resets={1: 2})))
    assert [found[1, 100 + t] for t in range(8, 12)] == [0, 0, 1, 1]
    assert [found[3, 300 + t] for t in range(8, 12)] == [0, 0, 0, 0]
    assert router.num_away == 1
    found = where(router.route(rows([1, 3], step=12, resets={3: 0})))
    assert set(found.values()) == {1}
    assert router.num_away == 0


def test_a_stream_moves_on_when_its_second_shard_is_lost_too():
    router = StreamRouter(3)
    router.lose(0)
    (before,) = {shard for shard, _ in router.route(rows([0]))}
    router.lose(before)
    (after,) = {shard for shard, _ in router.route(rows([0], step=4))}
    assert after not in (0, before)


def test_with_all_shards_lost_there_is_nowhere_to_go():
    router = StreamRouter(2)
    router.lose(0)
    router.lose(1)
    assert router.all_lost
    with pytest.raises(RuntimeError, match="all 2 replay shards are lost"):
        router.route(rows([0]))


def test_rows_of_a_fragment_keep_the_frame_after_them():
    part = rows([5], step=10).slice_rows(1, 3)
    assert part.first_step.tolist() == [11]
    assert part.obs[:, 0, 0].tolist() == [511, 512, 513]
