# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_per.replay import PriorityUpdate
from rllib_per.sharding.priorities import PriorityOutbox


def put(outbox, pairs, now_s=0.0):
    ids, td_errors = zip(*pairs, strict=True) if pairs else ((), ())
    update = PriorityUpdate(np.array(ids, np.int64), np.array(td_errors, np.float32))
    outbox.put(update, now_s)


def as_dict(update):
    return dict(zip(update.ids.tolist(), update.td_errors.tolist(), strict=True))


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), max_size=4), max_size=20)
)
def test_the_last_td_error_of_each_id_is_what_remains(updates):
    outbox = PriorityOutbox(flush_updates=2, flush_s=1.0)
    expected = {}
    for update in updates:
        put(outbox, update)
        expected |= dict(update)
    popped = outbox.pop()
    assert (as_dict(popped) if popped else {}) == expected
    assert outbox.pop() is None
    assert len(outbox) == 0


def test_what_waits_is_bounded_by_the_ids_however_long_it_cannot_be_sent():
    outbox = PriorityOutbox(flush_updates=4, flush_s=1.0)
    for round_ in range(1000):
        put(outbox, [(i, round_) for i in range(10)])
        assert len(outbox) <= 10 * (2 * 4 + 1)
    assert as_dict(outbox.pop()) == dict.fromkeys(range(10), 999.0)


def test_it_is_due_after_so_many_updates():
    outbox = PriorityOutbox(flush_updates=2, flush_s=100.0)
    put(outbox, [(1, 1)])
    assert not outbox.is_due(0.0)
    put(outbox, [(1, 2)])
    assert outbox.is_due(0.0)
    outbox.pop()
    assert not outbox.is_due(0.0)


def test_it_is_due_so_long_after_its_oldest_entry():
    outbox = PriorityOutbox(flush_updates=100, flush_s=5.0)
    assert not outbox.is_due(1e9)
    put(outbox, [(1, 1)], now_s=10.0)
    put(outbox, [(2, 1)], now_s=14.0)
    assert outbox.age_s(14.5) == 4.5
    assert not outbox.is_due(14.9)
    assert outbox.is_due(15.0)


def test_an_empty_update_changes_nothing():
    outbox = PriorityOutbox(flush_updates=1, flush_s=0.0)
    put(outbox, [])
    assert not outbox.is_due(0.0)


@pytest.mark.parametrize("arguments", [(0, 1.0), (1, -1.0), (1, float("nan"))])
def test_bounds_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match="priority_flush_"):
        PriorityOutbox(*arguments)
