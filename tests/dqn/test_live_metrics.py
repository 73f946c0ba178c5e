# SPDX-License-Identifier: MIT
"""What the results of asynchronous training say about queues, lags and waiting."""

import pytest

from tests.support.apex import AHEAD, apex_config, train_for

pytestmark = pytest.mark.ray
NUM_CPUS = 10


@pytest.fixture(scope="module")
def apex(one_ray):
    algorithm = apex_config().build_algo()
    train_for(algorithm, 1000)
    yield algorithm
    algorithm.stop()


def figures_after(algorithm, env_steps):
    """What the last of the next iterations reports."""
    return train_for(algorithm, env_steps)["replay_buffer"]


def test_td_error_lag_is_bounded_by_what_is_asked_for_ahead(apex):
    figures = figures_after(apex, 1000)
    assert 0 < figures["td_error_lag_max_updates"] <= AHEAD - 1
    assert figures["td_error_lag_mean_updates"] <= figures["td_error_lag_max_updates"]
    # A priority goes the same way, and then waits in the driver.
    assert figures["priority_lag_max_updates"] >= figures["td_error_lag_max_updates"]


def test_priority_lag_grows_with_the_updates_that_a_call_collects(apex, monkeypatch):
    outboxes = [sender._outbox for sender in apex.replay.priorities._senders]
    for outbox in outboxes:
        monkeypatch.setattr(outbox, "_flush_s", 1e9)
    lags = []
    for flush_updates in (1, 40):
        for outbox in outboxes:
            monkeypatch.setattr(outbox, "_flush_updates", flush_updates)
        train_for(apex, 500)  # What waited before goes first.
        apex.replay.flush()
        apex.replay.metrics()
        lags.append(figures_after(apex, 1500)["priority_lag_max_updates"])
    assert lags[1] >= 39 > lags[0]


def test_weights_lag_grows_when_no_weights_are_sent(apex, monkeypatch):
    bounded = figures_after(apex, 1000)["weights_lag_max_updates"]
    monkeypatch.setattr(apex.learners, "ask_for_weights", lambda **_: None)
    updates = apex.progress.updates
    stale = figures_after(apex, 1000)["weights_lag_max_updates"]
    assert stale >= 0.5 * (apex.progress.updates - updates) > bounded


def test_what_learners_owe_shows_while_they_hang(apex, monkeypatch):
    with monkeypatch.context() as hanging:
        hanging.setattr(apex.loop, "_max_updates_in_flight", 0)
        hanging.setattr(apex.loop, "_timeout_s", 5.0)
        apex.loop.metrics()
        with pytest.raises(TimeoutError):
            train_for(apex, 10_000)
        figures = apex.replay.metrics() | apex.loop.metrics()
    assert figures["num_updates_due"] > 0
    # Batches are asked for once half of the room for them is free: there may be some left.
    assert AHEAD / 2 < figures["num_requests_in_flight"] <= AHEAD
    assert figures["num_batch_bytes_in_flight"] > 0
    assert figures["num_collects_in_flight"] == 0
    # It had nothing to do but wait; a little went into handing out the last calls.
    assert 0.5 < figures["driver_idle_share"] <= 1.0
    assert figures_after(apex, 500)["num_updates_lifetime"] > 0


def test_fragments_on_their_way_have_a_size(apex):
    figures = figures_after(apex, 1000)
    assert figures["num_adds_in_flight_max"] >= 1
    row_bytes = 4 * 4 + 8 + 20
    # A fragment of 4 rows of 2 environments may go to one shard or to two.
    assert figures["num_add_bytes_in_flight_max"] >= 4 * row_bytes
    assert figures["num_add_bytes_in_flight_max"] <= 16 * 10 * 2 * row_bytes
