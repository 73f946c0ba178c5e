# SPDX-License-Identifier: MIT
"""A pickle and a deep copy go on as the buffer does; its text says what it is."""

import copy
import pickle
import threading

import numpy as np
import pytest

from rllib_per.replay import PrioritizedReplayBuffer, RowSpec, UniformReplayBuffer
from tests.replay.test_state import go_on, lived_in, make
from tests.support.experience import row_spec

COPIES = {"pickle": lambda b: pickle.loads(pickle.dumps(b)), "deepcopy": copy.deepcopy}
KINDS = {
    "proportional": {},
    "rank": {"prioritization": "rank", "weight_normalization": "buffer"},
    "of several threads": {"gather_threads": 2, "max_priority_decay": 0.99},
    "clipped": {"reward_clip": 2.0, "priority": "huber", "stratified": False, "first_id": 1 << 40},
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_copy_goes_on_as_the_original_does(options, copied):
    buffer, streams = lived_in(make(**options))
    before = buffer.metrics()
    other, its_streams = copied(buffer), copy.deepcopy(streams)
    assert type(other) is type(buffer)
    assert other.metrics() == before
    for one, its in zip(go_on(buffer, streams, 200), go_on(other, its_streams, 200), strict=True):
        np.testing.assert_array_equal(one, its)
    assert other.metrics() == buffer.metrics()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_has_nothing_in_common_with_the_original(copied):
    buffer, streams = lived_in(make())
    other = copied(buffer)
    before = other.state()
    go_on(buffer, streams, 30)
    after = other.state()
    for name in other.state_arrays:
        np.testing.assert_array_equal(before[name], after[name])
    assert before["rng"] == after["rng"]
    assert other.snapshot().lineage != buffer.snapshot().lineage


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_with_the_steps_of_its_environments(copied):
    buffer = PrioritizedReplayBuffer(50, RowSpec((1,)), n_step=2, seed=0)
    obs = [np.float32([[number]]) for number in range(8)]
    ended = [number == 2 for number in range(7)]
    for number in range(4):
        buffer.add_step(
            obs[number], [number], [1.0], obs[number + 1], [ended[number]], [False],
        )  # fmt: skip
    other = copied(buffer)
    for both in (buffer, other):
        both.add_step(obs[4], [4], [1.0], obs[5], [False], [False])
        both.add_step(obs[5], [5], [1.0], obs[6], [False], [False])
    assert other.metrics()["num_gaps_lifetime"] == 0
    np.testing.assert_array_equal(buffer.sample(40, 0.5).obs, other.sample(40, 0.5).obs)


def test_only_what_is_written_is_pickled():
    buffer = PrioritizedReplayBuffer(10_000, RowSpec((100, 100)), seed=0)
    assert len(pickle.dumps(buffer)) < 1_000_000


def test_an_allocator_of_ones_own_is_kept():
    buffer = make(allocator=np.zeros)
    assert copy.deepcopy(buffer)._allocate is np.zeros
    assert pickle.loads(pickle.dumps(buffer))._allocate is np.zeros


def test_a_uniform_buffer_stays_one():
    buffer = UniformReplayBuffer(60, row_spec(), seed=0)
    other = copy.deepcopy(buffer)
    assert type(other) is UniformReplayBuffer
    with pytest.raises(ValueError, match="uniform"):
        other.alpha = 0.5


def test_a_pickle_is_of_one_moment_while_another_thread_adds():
    buffer, streams = lived_in(make(capacity=2000))
    stop = threading.Event()

    def add():
        while not stop.is_set():
            buffer.add(streams.fragment([0, 1, 2], 6))

    thread = threading.Thread(target=add)
    thread.start()
    try:
        for _ in range(20):
            other = pickle.loads(pickle.dumps(buffer))
            ready = np.count_nonzero(other.state()["masses"])
            assert ready == len(other)
    finally:
        stop.set()
        thread.join()


def test_the_text_of_a_buffer_says_what_it_is():
    buffer = make(seed=0)
    assert repr(buffer).startswith(
        "PrioritizedReplayBuffer(capacity=120, filled=0, alpha=0.6, n_step=(1, 3), num_bytes="
    )
    lived_in(buffer)
    assert "filled=120, alpha=0.5" in repr(buffer)
    num_bytes = int(repr(buffer).rpartition("=")[2].rstrip(")"))
    stored = sum(buffer.state()[name].nbytes for name in buffer.state_arrays)
    assert stored < num_bytes < 2 * stored
    assert "n_step=1," in repr(UniformReplayBuffer(60, row_spec()))
