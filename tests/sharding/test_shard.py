# SPDX-License-Identifier: MIT
import numpy as np
import pytest

from rllib_per.replay import PriorityUpdate, UniformReplayBuffer
from rllib_per.replay.ids import first_id
from rllib_per.sharding.shard import ReplayShard, ShardNotStartedError
from tests.support.items import GIVEN, ROWS, fragment, items_of


def started(incarnation=0, **settings):
    shard = ReplayShard(3, {"capacity": 64, **GIVEN, **settings})
    shard.start(incarnation)
    return shard


def filled(**settings):
    shard = started(**settings)
    shard.add("a", 0, fragment(7, range(4), [1.0, 2.0, 3.0, 4.0]))
    return shard


def test_before_it_is_started_it_answers_pings_and_nothing_else():
    shard = ReplayShard(3, {"capacity": 64, **GIVEN})
    assert shard.ping().incarnation == -1
    nothing = PriorityUpdate(np.zeros(0, np.int64), np.zeros(0, np.float32))
    for call in (
        lambda: shard.add("a", 0, fragment(0, [0], [1.0])),
        lambda: shard.update_priorities("a", 0, nothing),
        lambda: shard.draw(np.array([0.5]), [1], 0.4),
        shard.state,
    ):
        with pytest.raises(ShardNotStartedError, match="shard 3"):
            call()


def test_every_answer_says_what_the_shard_holds_then():
    answer = filled().add("a", 1, fragment(8, [9], [0.5]))
    assert answer.num_added == 1
    summary = answer.summary
    assert (summary.size, summary.total_mass, summary.smallest_mass) == (5, 10.5, 0.5)
    assert (summary.incarnation, summary.num_added) == (0, 5)


def test_a_fragment_that_is_sent_twice_is_added_once():
    shard = filled()
    again = shard.add("a", 0, fragment(7, range(4), [1.0, 2.0, 3.0, 4.0]))
    assert again.num_added == 4
    assert shard.ping().size == 4
    assert shard.metrics()["num_repeated_calls_lifetime"] == 1
    shard.add("b", 0, fragment(8, range(4), np.ones(4)))
    assert shard.ping().size == 8


def test_an_update_that_is_sent_twice_is_applied_once():
    shard = filled()
    ids = first_id(3, 0) + np.arange(4)
    shard.update_priorities("a", 0, PriorityUpdate(ids, np.full(4, 5.0, np.float32)))
    shard.update_priorities("a", 1, PriorityUpdate(ids, np.full(4, 1.0, np.float32)))
    before = shard.ping().total_mass
    shard.update_priorities("a", 0, PriorityUpdate(ids, np.full(4, 5.0, np.float32)))
    assert shard.ping().total_mass == before


def test_starting_the_same_incarnation_again_keeps_its_content():
    shard = filled()
    assert shard.start(0).size == 4
    assert shard.start(1).size == 0


def test_ids_carry_shard_and_incarnation_and_those_of_another_incarnation_are_stale():
    shard = filled()
    _, batch = shard.draw(np.array([0.0, 0.99]), [2], 0.4)
    assert batch.ids.tolist() == [first_id(3, 0), first_id(3, 0) + 3]
    shard.start(1)
    shard.add("a", 0, fragment(7, range(4), np.ones(4)))
    shard.update_priorities("b", 0, PriorityUpdate(batch.ids, np.array([9.0, 9.0], np.float32)))
    assert shard.ping().total_mass == 4.0
    assert shard.metrics()["num_stale_updates_lifetime"] == 2


def test_a_draw_finds_the_row_at_each_place_and_cuts_the_rows_as_asked():
    # Masses 1, 2, 3, 4 of 10: their rows begin at 0, 0.1, 0.3 and 0.6.
    answer, first, second = filled().draw(np.array([0.05, 0.15, 0.35, 0.95]), [1, 3], beta=1.0)
    assert items_of(first).tolist() == [0]
    assert items_of(second).tolist() == [1, 2, 3]
    weights = np.concatenate([first.importance_weights, second.importance_weights])
    np.testing.assert_allclose(weights, 1.0 / (4 * np.array([0.1, 0.2, 0.3, 0.4])), rtol=1e-6)
    assert answer.num_rows == 4
    assert answer.largest_weight == weights.max()
    assert answer.num_bytes >= 4 * (2 * 4 + 8)


def test_a_shard_without_mass_says_so_instead_of_failing():
    answer, first, second = started().draw(np.array([0.1, 0.9]), [1, 1], 0.4)
    assert (answer.num_rows, first, second) == (0, None, None)


def test_each_shard_and_incarnation_draws_its_own_windows():
    def windows(shard, incarnation):
        one = ReplayShard(shard, {"capacity": 64, **GIVEN, "n_step": (1, 3), "seed": 5})
        one.start(incarnation)
        one.add("a", 0, fragment(7, range(20), np.ones(20)))
        return one.draw(np.linspace(0, 0.9, 32), [32], 0.4)[1].n_step_returns.tolist()

    assert windows(0, 0) == windows(0, 0)
    assert windows(0, 0) != windows(1, 0)
    assert windows(0, 0) != windows(0, 1)


def test_a_new_alpha_holds_for_a_new_incarnation_too():
    shard = filled()
    assert shard.set_alpha(0.0).total_mass == 4.0
    shard.start(1, alpha=0.0)
    shard.add("a", 0, fragment(7, range(4), [1.0, 2.0, 3.0, 4.0]))
    assert shard.ping().total_mass == 4.0


def test_a_uniform_buffer_can_be_a_shard():
    shard = ReplayShard(0, {"capacity": 64, "rows": ROWS}, UniformReplayBuffer)
    shard.start(0)
    shard.add("a", 0, fragment(7, range(4), [1.0, 2.0, 3.0, 4.0]))
    assert shard.ping().total_mass == 4.0


def test_state_goes_into_another_shard_as_that_ones_own():
    shard = filled()
    other = started(incarnation=2)
    summary = other.load_state(shard.state())
    assert (summary.size, summary.total_mass, summary.incarnation) == (4, 10.0, 2)
    assert set(shard.state_arrays()) <= set(shard.state())
