# SPDX-License-Identifier: MIT
"""How late TD errors are, and what else shows that someone waits, in the facade's metrics."""

import numpy as np
import pytest

from rllib_per.replay import PriorityUpdate
from rllib_per.sharding import ShardedReplay, ShardLimits, place_shards
from rllib_per.sharding.priorities import Lag
from tests.support.items import GIVEN, fragment

NEVER_S = 1e9
FLUSH_UPDATES = 3


def shards_of(flush_updates):
    limits = ShardLimits(priority_flush_updates=flush_updates, priority_flush_s=NEVER_S)
    shards = ShardedReplay(place_shards(1, {"capacity": 100, **GIVEN}), seed=0, limits=limits)
    shards.add(fragment(0, range(9), np.ones(9)))
    return shards


def learn(shards, request):
    """TD errors for a batch, as a learner answers."""
    (part,) = shards.collect(request)
    (block,) = part.blocks
    shards.priorities.put(PriorityUpdate(block.ids, np.ones(len(block)), request.asked_at))


def test_td_error_lag_counts_the_batches_that_came_between():
    shards = shards_of(1)
    for request in shards.request_many(3, 4, 0.5):
        learn(shards, request)
    metrics = shards.metrics()
    assert metrics["td_error_lag_mean_updates"] == pytest.approx((0 + 1 + 2) / 3)
    assert metrics["td_error_lag_max_updates"] == 2


def test_batches_that_are_asked_for_one_by_one_have_no_lag():
    shards = shards_of(1)
    for _ in range(3):
        learn(shards, shards.request(4, 0.5))
    shards.poll()
    metrics = shards.metrics()
    assert metrics["td_error_lag_max_updates"] == metrics["priority_lag_max_updates"] == 0


def test_priority_lag_goes_on_until_the_shard_has_the_oldest_of_a_flush():
    shards = shards_of(FLUSH_UPDATES)
    for number in range(FLUSH_UPDATES):
        assert "priority_lag_max_updates" not in shards.metrics(), number
        learn(shards, shards.request(4, 0.5))
    shards.poll()
    # The first of three was confirmed after two others had come.
    metrics = shards.metrics()
    assert metrics["priority_lag_max_updates"] == FLUSH_UPDATES - 1
    assert metrics["td_error_lag_max_updates"] == 0


def test_lags_are_those_since_the_last_report():
    shards = shards_of(1)
    for request in shards.request_many(3, 4, 0.5):
        learn(shards, request)
    shards.metrics()
    learn(shards, shards.request(4, 0.5))
    assert shards.metrics()["td_error_lag_max_updates"] == 0
    assert "td_error_lag_max_updates" not in shards.metrics()


def test_a_lag_of_nothing_is_no_number():
    lag = Lag()
    assert lag.pop("x") == {}
    lag.record(4)
    lag.record(1)
    assert lag.pop("x") == {"x_mean_updates": 2.5, "x_max_updates": 4.0}


def test_the_age_of_the_masses_picture_is_the_oldest_that_a_draw_went_by(monkeypatch):
    shards = shards_of(1)
    shards.metrics()
    ages = iter([0.2, 0.7, 0.1])
    monkeypatch.setattr(shards._pool, "refresh", lambda: next(ages))
    for _ in range(3):
        shards.collect(shards.request(4, 0.5))
    assert shards.metrics()["mass_staleness_max_s"] == 0.7
    assert shards.metrics()["mass_staleness_max_s"] == 0.0


def test_requests_and_their_bytes_in_flight_rise_and_fall():
    shards = shards_of(1)
    shards.sample(8, 0.5)
    requests = shards.request_many(2, 8, 0.5)
    metrics = shards.metrics()
    assert metrics["num_requests_in_flight"] == 2
    assert metrics["num_batch_bytes_in_flight"] == 2 * 8 * (2 * 4 + 8 + 8 + 20)
    for request in requests:
        shards.collect(request)
    assert shards.metrics()["num_requests_in_flight"] == 0
    assert shards.metrics()["num_batch_bytes_in_flight"] == 0
