# SPDX-License-Identifier: MIT
"""Stacks of frames, byte for byte, against a stacker that steps along with the environments."""

from collections import deque

import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv

from rllib_per.replay import Fragment, PrioritizedReplayBuffer, RowSpec
from tests.support.experience import FRAME_SHAPE, Streams, frame_of, row_spec


class NaiveStacker:
    """Stacks of each stream, kept by (stream, frame number) for as long as the test runs."""

    def __init__(self, stack, padding):
        self.stack, self.padding = stack, padding
        self.history = {}
        self.stacks = {}

    def lose_track(self, stream):
        """Frames are missing: no stack is right before it is full again."""
        self.history[stream] = deque([np.full(FRAME_SHAPE, -1)] * self.stack, self.stack)

    def begin(self, stream, number):
        frame = frame_of(stream, number)
        filler = np.zeros(FRAME_SHAPE, np.int32) if self.padding == "zero" else frame
        self.history[stream] = deque([filler] * self.stack, self.stack)
        self.push(stream, number)

    def push(self, stream, number):
        self.history[stream].append(frame_of(stream, number))
        self.stacks[stream, number] = np.stack(self.history[stream])

    def follow(self, fragment):
        """Take the fragment's frames; `begin` is called where a history restarts."""
        for n, stream in enumerate(fragment.stream_ids.tolist()):
            first = int(fragment.first_step[n])
            if (stream, first) not in self.stacks:
                if first == 0:
                    self.begin(stream, first)
                else:
                    self.lose_track(stream)
                    self.push(stream, first)
            for t in range(len(fragment.rewards)):
                restart = fragment.reset[t, n]
                (self.begin if restart else self.push)(stream, first + t + 1)


@pytest.mark.parametrize("padding", ["zero", "repeat"])
@pytest.mark.parametrize("stack", [1, 2, 4])
@pytest.mark.parametrize("n_step", [1, 3])
def test_stacks_are_right_whatever_happens_to_streams(stack, padding, n_step):
    """Many streams, ends and lost lives, odd fragments, gaps, and a ring that wraps often."""
    rng = np.random.default_rng([stack, n_step])
    streams = Streams(rng)
    stacker = NaiveStacker(stack, padding)
    buffer = PrioritizedReplayBuffer(97, row_spec(stack, padding), n_step=n_step, alpha=0.0, seed=1)
    checked = 0
    for _ in range(150):
        ids = rng.choice(7, rng.integers(1, 6), replace=False).tolist()
        if rng.random() < 0.1:
            streams.skip(ids[0], 3)
        fragment = streams.fragment(ids, int(rng.integers(1, 12)), end=0.2)
        stacker.follow(fragment)
        buffer.add(fragment)
        if len(buffer) == 0:
            continue
        batch = buffer.sample(24, 0.0)
        for obs, next_obs in zip(batch.obs, batch.next_obs, strict=True):
            for observation in (obs, next_obs):
                stream, number = int(observation[-1, 1, 1]), int(observation[-1, 1, 2])
                np.testing.assert_array_equal(observation, stacker.stacks[stream, number])
                checked += 1
    assert checked > 5000


def test_the_check_would_see_a_wrong_padding():
    streams = Streams(np.random.default_rng(0))
    stacker = NaiveStacker(3, "zero")
    buffer = PrioritizedReplayBuffer(64, row_spec(3, "repeat"))
    fragment = streams.fragment([0], 5, end=0.0, cut=0.0)
    stacker.follow(fragment)
    buffer.add(fragment)
    first = buffer.draw([0.0], 0.0).obs[0]
    assert not np.array_equal(first, stacker.stacks[0, 0])


def test_a_stream_that_dies_in_the_middle_of_an_episode_stays_drawable():
    buffer = PrioritizedReplayBuffer(64, row_spec(4), n_step=2)
    streams = Streams(np.random.default_rng(0))
    buffer.add(streams.fragment([0, 1], 6, end=0.0, cut=0.0))
    for _ in range(30):  # stream 1 is never heard of again, and the ring wraps over it
        buffer.add(streams.fragment([0], 5, end=0.0, cut=0.0))
        batch = buffer.sample(16, 0.0)
        numbers = batch.obs[:, :, 1, 2]
        assert ((np.diff(numbers, axis=1) == 1) | (numbers[:, :-1] == 0)).all()
    assert set(batch.obs[:, -1, 1, 1]) == {0}


def test_no_frame_is_overwritten_while_a_transition_needs_it():
    """A slow stream beside a fast one: its neighbouring frames lie far apart in the ring."""
    buffer = PrioritizedReplayBuffer(40, row_spec(3), n_step=2, alpha=0.0, seed=0)
    streams = Streams(np.random.default_rng(0))
    slow = 0
    for i in range(200):
        buffer.add(streams.fragment([0], 3, end=0.0, cut=0.0))
        if i % 3 == 0:
            buffer.add(streams.fragment([1], 1, end=0.0, cut=0.0))
        batch = buffer.sample(32, 0.0)
        for observation in (batch.obs, batch.next_obs):
            stream, number = observation[:, :, 1, 1], observation[:, :, 1, 2]
            filled = observation[:, :, 0, 2] == 1
            assert (stream == stream[:, -1:])[filled].all()
            assert (number == number[:, -1:] - np.array([2, 1, 0]))[filled].all()
            assert filled[number[:, -1] >= 2].all()
        slow += (batch.obs[:, -1, 1, 1] == 1).sum()
    assert slow > 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads):
    """Large enough that threads are really used."""
    rows = RowSpec((64, 64), np.uint8, stack=4)
    rng = np.random.default_rng(0)
    shape = (60, 2)
    zeros = np.zeros(shape, np.bool_)
    fragment = Fragment(
        stream_ids=np.arange(2),
        first_step=np.zeros(2, np.int64),
        obs=rng.integers(0, 255, (61, 2, 64, 64), np.uint8),
        actions=np.zeros(shape, np.int64),
        rewards=np.zeros(shape, np.float32),
        terminated=rng.random(shape) < 0.1,
        truncated=zeros,
        reset=zeros,
    )
    batches = []
    for count in (1, threads):
        buffer = PrioritizedReplayBuffer(200, rows, n_step=3, seed=4, gather_threads=count)
        buffer.add(fragment)
        batches.append(buffer.sample(101, 0.5))
    np.testing.assert_array_equal(batches[0].obs, batches[1].obs)
    np.testing.assert_array_equal(batches[0].next_obs, batches[1].next_obs)


def test_batches_are_made_by_the_allocator():
    made = []

    def allocate(shape, dtype):
        made.append(np.empty(shape, dtype))
        return made[-1]

    buffer = PrioritizedReplayBuffer(64, row_spec(2), allocator=allocate)
    buffer.add(Streams(np.random.default_rng(0)).fragment([0], 20, end=0.0, cut=0.0))
    batch = buffer.sample(8, 0.5)
    columns = [
        batch.obs, batch.next_obs, batch.actions, batch.n_step_returns, batch.bootstrap_discounts,
        batch.importance_weights, batch.ids, batch.extras["number"],
    ]  # fmt: skip
    assert all(any(column is array for array in made) for column in columns)


def atari_fragments(env, num_fragments, num_rows, rng):
    """The env's stacks, (T + 1, N, stack, H, W), and fragments with the newest frame of each."""
    stacks, _ = env.reset(seed=0)
    num_envs = len(stacks)
    over = np.zeros(num_envs, np.bool_)
    for first_row in range(0, num_fragments * num_rows, num_rows):
        seen, columns = [stacks], []
        for _ in range(num_rows):
            actions = rng.integers(0, env.single_action_space.n, num_envs)
            reset = over
            stacks, rewards, terminated, truncated, _ = env.step(actions)
            columns.append((actions, rewards, terminated & ~reset, truncated & ~reset, reset))
            over = (terminated | truncated) & ~reset
            seen.append(stacks)
        all_stacks = np.array(seen)
        actions, rewards, terminated, truncated, reset = map(np.array, zip(*columns, strict=True))
        rows = np.arange(first_row, first_row + num_rows)[:, None]
        yield (
            all_stacks,
            Fragment(
                stream_ids=np.arange(num_envs),
                first_step=np.full(num_envs, first_row),
                obs=all_stacks[:, :, -1],
                actions=actions,
                rewards=rewards,
                terminated=terminated,
                truncated=truncated,
                reset=reset,
                extras={
                    "row": np.repeat(rows, num_envs, axis=1),
                    "stream": np.tile(np.arange(num_envs), (num_rows, 1)),
                },
            ),
        )


@pytest.mark.parametrize("game", ["pong", "breakout"])
@pytest.mark.parametrize("use_fire_reset", [False, True])
def test_stacks_are_those_of_atari_vector_env(game, use_fire_reset):
    """Real games with many resets, in a ring that wraps: s and s' are what the env showed then."""
    env = AtariVectorEnv(
        game=game, num_envs=3, stack_num=4, img_height=42, img_width=42, noop_max=5,
        max_num_frames_per_episode=160, use_fire_reset=use_fire_reset, num_threads=1,
    )  # fmt: skip
    rows = RowSpec(
        (42, 42), np.uint8, stack=4, extras={"row": ((), np.int64), "stream": ((), np.int64)}
    )
    buffer = PrioritizedReplayBuffer(200, rows, n_step=3, alpha=0.0, seed=0)
    given, num_resets = {}, 0
    for stacks, fragment in atari_fragments(env, 12, 20, np.random.default_rng(0)):
        first = int(fragment.first_step[0])
        given |= {(first + t, n): stacks[t, n] for t in range(21) for n in range(3)}
        num_resets += int(fragment.reset.sum())
        buffer.add(fragment)
        batch = buffer.sample(64, 0.0)
        for i in range(64):
            row, stream = int(batch.extras["row"][i]), int(batch.extras["stream"][i])
            np.testing.assert_array_equal(batch.obs[i], given[row, stream])
            nexts = [given[row + k, stream] for k in (1, 2, 3) if (row + k, stream) in given]
            assert any(np.array_equal(batch.next_obs[i], stack) for stack in nexts)
    env.close()
    assert num_resets > 10
