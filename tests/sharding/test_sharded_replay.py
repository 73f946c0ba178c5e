# SPDX-License-Identifier: MIT
"""The facade, over shards in this process."""

import json

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.ids import first_id
from rllib_per.sharding import ReplayShard, ShardedReplay, ShardLimits, join, place_shards
from rllib_per.sharding.calls import LocalShard
from tests.support.items import GIVEN, ROWS, fragment, items_of, side_by_side

NEVER_S = 1e9
NUM_ROWS = 5


def sharded(num_shards=3, limits=None, handles=None, **options):
    settings = {"capacity": 300, **GIVEN, "seed": 1}
    handles = handles or place_shards(num_shards, settings)
    return ShardedReplay(handles, seed=2, limits=limits, **options)


def six_streams(step=0):
    """Items 0 to 29 in streams 0 to 5, of masses 1 to 30."""
    return side_by_side(
        [
            fragment(s, items, items + 1.0, first_step=step)
            for s, items in enumerate(np.arange(30).reshape(6, NUM_ROWS))
        ]
    )


def filled(*arguments, **options):
    shards = sharded(*arguments, **options)
    assert shards.add(six_streams()) == 30
    return shards


def masses_of(shards):
    """Each shard's mass at this moment, whatever the facade knows."""
    return [proxy.handle.call(ReplayShard.ping).total_mass for proxy in shards._pool]


# -- batches ---------------------------------------------------------------------------------


def test_streams_are_divided_among_the_shards_and_counted_together():
    shards = filled()
    assert len(shards) == shards.num_added_lifetime == 30
    assert masses_of(shards) == [sum(range(1, 6)) + sum(range(16, 21)), 40 + 115, 65 + 140]


@pytest.mark.parametrize(("num_shards", "parts"), [(1, 1), (1, 3), (2, 2), (4, 3), (3, 6)])
def test_the_parts_of_a_batch_are_the_batch(num_shards, parts):
    whole = filled(num_shards).sample(48, 0.5)
    shards = filled(num_shards)
    collected = shards.collect(shards.request(48, 0.5, parts))
    joined = [join(part.blocks, part.factors, part.limit) for part in collected]
    assert [len(batch) for batch in joined] == [48 // parts] * parts
    assert sum(len(part.blocks) for part in collected) <= num_shards + parts - 1
    for name in ("ids", "obs", "importance_weights", "n_step_returns"):
        together = np.concatenate([getattr(batch, name) for batch in joined])
        np.testing.assert_array_equal(together, getattr(whole, name))
    together = np.concatenate([batch.extras["priority"] for batch in joined])
    np.testing.assert_array_equal(together, whole.extras["priority"])


class Sealed:
    """A block that the driver has no business to look into."""

    def __init__(self, block):
        object.__setattr__(self, "block", block)

    def __getattribute__(self, name):
        raise AssertionError(f"the driver read {name!r} of a block")


class SealedShard(LocalShard):
    """A shard whose rows can't be read."""

    def call_for_many(self, num_returns, method, *arguments):
        answer, *blocks = super().call_for_many(num_returns, method, *arguments)
        return [answer, *map(Sealed, blocks)]


def test_the_driver_passes_batches_on_without_reading_them():
    settings = {"capacity": 100, **GIVEN}
    shards = filled(handles=[SealedShard(ReplayShard(k, settings)) for k in range(3)])
    first, second = shards.collect(shards.request(32, 0.5, parts=2))
    with pytest.raises(AssertionError, match="the driver read"):
        join(first.blocks, first.factors, first.limit)
    blocks = [object.__getattribute__(block, "block") for block in second.blocks]
    assert len(join(blocks, second.factors, second.limit)) == 16


def test_requests_in_flight_are_bounded_in_number():
    shards = filled(limits=ShardLimits(max_requests_in_flight=2))
    requests = [shards.request(8, 0.5) for _ in range(2)]
    assert not shards.room(8)
    with pytest.raises(RuntimeError, match=r"max_requests_in_flight \(2\)"):
        shards.request(8, 0.5)
    shards.collect(requests[0])
    assert shards.room(8)
    with pytest.raises(ValueError, match="collected already"):
        shards.collect(requests[0])


def test_requests_in_flight_are_bounded_in_bytes_but_one_may_always_go():
    shards = filled(limits=ShardLimits(max_bytes_in_flight=1000))
    shards.sample(8, 0.5)
    row_bytes = 2 * 4 + 8 + 8 + 20
    request = shards.request(20, 0.5)
    assert shards.metrics()["num_batch_bytes_in_flight"] == 20 * row_bytes
    assert shards.room(2)
    assert not shards.room(3)
    shards.collect(request)
    assert shards.room(1000)


@pytest.mark.parametrize(("batch_size", "beta"), [(0, 0.5), (8, -0.1), (8, 1.1), (8, np.nan)])
def test_arguments_out_of_range_are_refused(batch_size, beta):
    with pytest.raises(ValueError, match=r"batch_size|beta"):
        filled().sample(batch_size, beta)


def test_empty_shards_can_not_be_drawn_from():
    with pytest.raises(RuntimeError, match="add some first"):
        sharded().sample(8, 0.5)


# -- priorities ------------------------------------------------------------------------------


def updates(shards, count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        ids = shards.sample(16, 0.5).ids
        yield ids, rng.uniform(0.0, 9.0, len(ids)).astype(np.float32)


@pytest.mark.parametrize(("flush_updates", "calls"), [(1, 3 * 8), (4, 3 * 2), (8, 3)])
def test_updates_are_coalesced_into_one_call_per_shard(flush_updates, calls):
    limits = ShardLimits(priority_flush_updates=flush_updates, priority_flush_s=NEVER_S)
    shards = filled(limits=limits)
    lone = PrioritizedReplayBuffer(300, **GIVEN)
    lone.add(six_streams())
    row_of = {int(item): i for i, item in zip(*every_row(lone), strict=True)}
    for ids, td_errors in list(updates(shards, 8)):
        shards.update_priorities(ids, td_errors)
        own_ids = [row_of[item] for item in items_of_ids(shards, ids)]
        lone.update_priorities(np.array(own_ids), td_errors)
    shards.poll()
    assert shards.metrics()["num_priority_calls_lifetime"] == calls
    assert sum(masses_of(shards)) == pytest.approx(lone.total_mass, rel=1e-12)


def every_row(buffer):
    batch = buffer.draw(np.linspace(0.0, 1.0, 20_000, endpoint=False), 0.5)
    return batch.ids, items_of(batch)


def items_of_ids(shards, ids):
    """Which item each id stands for: all rows of all shards are looked through."""
    known = {}
    for proxy in shards._pool:
        places = np.linspace(0.0, 1.0, 20_000, endpoint=False)
        _, batch = proxy.handle.call(ReplayShard.draw, places, [20_000], 0.5)
        known |= dict(zip(batch.ids.tolist(), items_of(batch).tolist(), strict=True))
    return [known[int(i)] for i in ids]


def test_nothing_is_sent_before_it_is_due_and_flush_sends_it():
    shards = filled(limits=ShardLimits(priority_flush_updates=100, priority_flush_s=NEVER_S))
    before = masses_of(shards)
    for ids, td_errors in updates(shards, 5):
        shards.update_priorities(ids, td_errors)
    assert masses_of(shards) == before
    shards.flush()
    assert masses_of(shards) != before


def test_an_update_is_due_after_some_time_too():
    shards = filled(limits=ShardLimits(priority_flush_updates=100, priority_flush_s=0.0))
    ((ids, td_errors),) = updates(shards, 1)
    shards.update_priorities(ids, td_errors)
    assert shards.metrics()["num_priority_calls_lifetime"] == 3


def test_ids_of_a_past_incarnation_are_dropped_and_counted():
    shards = filled(limits=ShardLimits(priority_flush_updates=1))
    ids = shards.sample(16, 0.5).ids
    shards.load_state(shards.state())
    before = masses_of(shards)
    shards.update_priorities(ids, np.full(16, 99.0, np.float32))
    assert masses_of(shards) == before
    assert shards.metrics()["num_dropped_updates_lifetime"] == 16
    fresh = shards.sample(16, 0.5).ids
    shards.update_priorities(fresh, np.full(16, 99.0, np.float32))
    assert masses_of(shards) != before


def test_ids_that_no_shard_gave_out_are_refused():
    with pytest.raises(ValueError, match="ids must be of shards 0 to 2: got ids of shards 5 to 5"):
        filled().update_priorities([first_id(5, 0)], [1.0])
    with pytest.raises(ValueError, match="of one length"):
        filled().update_priorities([first_id(0, 0)], [1.0, 2.0])


# -- settings, figures, state ----------------------------------------------------------------


def test_a_new_alpha_re_transforms_every_shard():
    shards = filled()
    shards.alpha = 0.0
    assert shards.alpha == 0.0
    assert masses_of(shards) == [10.0, 10.0, 10.0]
    assert (shards.sample(64, 0.5).importance_weights == 1.0).all()


def test_figures_are_those_of_all_shards():
    shards = filled()
    shards.sample(60, 0.5)
    metrics = shards.metrics()
    assert metrics["num_transitions"] == metrics["num_transitions_added_lifetime"] == 30
    assert metrics["capacity"] == 300
    assert metrics["num_transitions_sampled_lifetime"] == 60
    assert metrics["replay_ratio"] == 2.0
    assert metrics["importance_weight_max"] == 1.0
    assert metrics["num_shards"] == metrics["num_shards_live"] == 3


@pytest.mark.parametrize("normalization", ["batch", "buffer", None])
def test_figures_of_importance_weights_are_those_of_the_batch_that_learners_get(normalization):
    """The driver of asynchronous training never sees a row."""
    shards = filled(weight_normalization=normalization)
    # One row is so rare that "buffer" bounds its weight.
    shards.update_priorities(shards.sample(200, 0.5).ids[:1], [1e-6])
    shards.flush()
    parts = shards.collect(shards.request(600, 0.5, parts=3))
    blocks = [join(part.blocks, part.factors, part.limit) for part in parts]
    weights = np.concatenate([block.importance_weights for block in blocks]).astype(np.float64)
    metrics = shards.metrics()
    assert metrics["importance_weight_max"] == weights.max()
    assert metrics["importance_weight_mean"] == pytest.approx(weights.mean(), rel=1e-12)
    share = weights.sum() ** 2 / (weights**2).sum() / len(weights)
    assert metrics["effective_sample_share"] == pytest.approx(share, rel=1e-12)


def test_without_a_batch_there_are_no_figures_of_importance_weights():
    assert not [name for name in filled().metrics() if name.startswith("importance_weight")]


def test_after_its_state_is_restored_the_same_draws_follow():
    shards = filled()
    for ids, td_errors in updates(shards, 3):
        shards.update_priorities(ids, td_errors)
    state = shards.state()
    assert set(shards.state_arrays) == {k for k, v in state.items() if isinstance(v, np.ndarray)}
    json.dumps({name: value for name, value in state.items() if name not in shards.state_arrays})
    other = sharded()
    other.load_state(state)
    first, second = shards.sample(64, 0.5), other.sample(64, 0.5)
    np.testing.assert_array_equal(items_of(first), items_of(second))
    np.testing.assert_array_equal(first.importance_weights, second.importance_weights)
    assert not set(first.ids.tolist()) & set(second.ids.tolist())


def test_a_state_of_another_number_of_shards_is_refused():
    with pytest.raises(ValueError, match="is of 3 replay shards, and these are 2"):
        sharded(2).load_state(filled(3).state())


def test_capacity_is_shared_out_to_the_last_row():
    shards = ShardedReplay(place_shards(3, {"capacity": 101, "rows": ROWS}))
    assert shards.metrics()["capacity"] == 101


@pytest.mark.parametrize("num_shards", [0, 257])
def test_a_number_of_shards_that_ids_cannot_carry_is_refused(num_shards):
    with pytest.raises(ValueError, match="must be from 1 to 256"):
        place_shards(num_shards, {"capacity": 10_000, "rows": ROWS})


def test_limits_that_would_stop_everything_are_refused():
    with pytest.raises(ValueError, match="max_calls_in_flight must be an integer >= 1"):
        ShardLimits(max_calls_in_flight=0)


def test_several_batches_of_one_call_are_the_batches_of_several_calls():
    at_once, one_by_one = filled(), filled()
    several = at_once.request_many(3, 12, 0.5)
    for request in several:
        together, alone = at_once.collect(request), one_by_one.collect(one_by_one.request(12, 0.5))
        for part, other in zip(together, alone, strict=True):
            assert part.factors == other.factors
            for block, other_block in zip(part.blocks, other.blocks, strict=True):
                np.testing.assert_array_equal(block.ids, other_block.ids)
                np.testing.assert_array_equal(
                    block.importance_weights, other_block.importance_weights
                )


def test_no_more_batches_are_asked_for_at_once_than_there_is_room_for():
    shards = filled(limits=ShardLimits(max_requests_in_flight=3))
    shards.request(8, 0.5)
    assert shards.room(8) == 2
    with pytest.raises(RuntimeError, match=r"no room for 3 more: 1 batches are in flight"):
        shards.request_many(3, 8, 0.5)
    assert len(shards.request_many(2, 8, 0.5)) == 2
    assert shards.room(8) == 0
