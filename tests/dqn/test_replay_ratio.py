# SPDX-License-Identifier: MIT
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_per.dqn.training_clock import Progress, ReplayRatio, TrainingClock


def test_nothing_is_due_before_learning_starts():
    ratio = ReplayRatio(8.0, batch_size=32, learning_starts=100)
    ratio.add(99)
    assert ratio.take_updates() == 0


def test_the_first_update_is_due_when_learning_starts():
    ratio = ReplayRatio(8.0, batch_size=32, learning_starts=100)
    ratio.add(100)
    assert ratio.take_updates() == 1


@given(
    ratio=st.sampled_from([0.25, 1.0, 3.5, 8.0, 100.0]),
    batch_size=st.integers(1, 512),
    added=st.lists(st.integers(0, 70), min_size=1, max_size=200),
)
def test_sampled_over_added_is_the_ratio_to_one_batch(ratio, batch_size, added):
    controller = ReplayRatio(ratio, batch_size, learning_starts=1)
    updates = 0
    for count in added:
        controller.add(count)
        updates += controller.take_updates()
    if sum(added):
        earned = ratio * (sum(added) - 1) + batch_size
        assert earned - batch_size < updates * batch_size <= earned


def test_a_restored_controller_goes_on_where_the_first_one_was():
    first = ReplayRatio(1.5, 32, 10)
    first.add(47)
    first.take_updates()
    second = ReplayRatio(1.5, 32, 10)
    second.load_state(first.state(), with_buffer=True)
    for controller in (first, second):
        controller.add(31)
    assert first.take_updates() == second.take_updates()
    assert first.state() == second.state()


def test_a_batch_that_never_came_is_due_once_more():
    ratio = ReplayRatio(1.0, batch_size=4, learning_starts=1)
    ratio.add(9)
    assert ratio.num_due == 3
    ratio.take(3)
    ratio.start_update()
    assert ratio.num_due == 0
    ratio.give_back()
    assert ratio.num_due == 1
    ratio.give_all_back()
    assert ratio.num_due == 2
    ratio.give_all_back()
    assert ratio.num_due == 2


def test_batches_that_are_under_way_at_a_save_are_due_after_a_restore():
    first = ReplayRatio(1.0, batch_size=4, learning_starts=1)
    first.add(9)
    first.take(3)
    first.start_update()
    second = ReplayRatio(1.0, batch_size=4, learning_starts=1)
    second.take(1)
    second.load_state(first.state(), with_buffer=True)
    second.give_all_back()  # Of what was under way before the restore, nothing counts.
    assert second.num_due == 2


def test_without_its_buffer_learning_waits_until_replay_is_filled_again():
    first = ReplayRatio(1.0, 32, learning_starts=1000)
    first.add(5000)
    second = ReplayRatio(1.0, 32, learning_starts=1000)
    second.load_state(first.state(), with_buffer=False)
    second.add(999)
    assert second.take_updates() == 0


@pytest.mark.parametrize("learning_starts", [0, 1])
def test_the_first_transition_can_start_learning(learning_starts):
    ratio = ReplayRatio(1.0, batch_size=4, learning_starts=learning_starts)
    assert ratio.take_updates() == 0
    ratio.add(1)
    assert ratio.take_updates() == 1


def test_the_clock_counts_steps_episodes_and_updates():
    progress = Progress()
    clock = TrainingClock(progress, None, ReplayRatio(1.0, 4, 1), broadcast_interval=2)
    clock.count_steps(30, 2)
    clock.count_steps(5, 1)
    assert [clock.count_update() for _ in range(3)] == [False, True, False]
    assert clock.timesteps() == {"env_steps": 35, "episodes": 3, "updates": 3}
