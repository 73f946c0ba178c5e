# SPDX-License-Identifier: MIT
"""`add_step` is `add` of the same rows, whichever way environments are reset."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rllib_per.replay import Fragment, FrameSpec, PrioritizedReplayBuffer, RowSpec
from tests.support.experience import FRAME_SHAPE, frame_of, row_spec

NUM_ENVS = 3
ENDS = [(True, False), (False, True), (True, True)]


class Games:
    """N environments whose frames say which and when; episodes of 1 to 9 steps end in every way."""

    def __init__(self, seed, stack=None, padding="zero"):
        self.rng = np.random.default_rng(seed)
        self.stack, self.padding = stack, padding
        self.frame = np.zeros(NUM_ENVS, int)
        self.left = self.rng.integers(1, 10, NUM_ENVS)
        self.stacks = [[] for _ in range(NUM_ENVS)]
        for env in range(NUM_ENVS):
            self._show(env, begins=True)

    def obs(self):
        if self.stack is None:
            return np.stack([shown[-1] for shown in self.stacks])
        return np.stack([np.stack(shown) for shown in self.stacks])

    def frames(self):
        return np.stack([shown[-1] for shown in self.stacks])

    def _show(self, env, begins=False):
        frame = frame_of(env, self.frame[env])
        if begins:
            filler = frame if self.padding == "repeat" else np.zeros_like(frame)
            self.stacks[env] = [filler] * ((self.stack or 1) - 1) + [frame]
        else:
            self.stacks[env] = [*self.stacks[env][1:], frame]

    def reset(self, envs):
        """Begin episodes."""
        for env in envs:
            self.frame[env] += 1
            self.left[env] = self.rng.integers(1, 10)
            self._show(env, begins=True)

    def play(self, envs):
        """One step of some environments: rewards, terminated, truncated, of all."""
        rewards = self.rng.integers(-8, 9, NUM_ENVS).astype(np.float64)
        flags = np.zeros((2, NUM_ENVS), bool)
        for env in envs:
            self.frame[env] += 1
            self.left[env] -= 1
            self._show(env)
            if self.left[env] == 0:
                flags[:, env] = ENDS[self.rng.integers(3)]
        return rewards, *flags


def buffers(stack, padding, n_step, capacity=400):
    options = {"n_step": n_step, "gamma": 0.9, "seed": 0}
    rows = row_spec(stack, padding)
    return (PrioritizedReplayBuffer(capacity, rows, **options) for _ in range(2))


def add_rows(buffer, row, envs, obs, next_obs, actions, rewards, terminated, truncated, reset):
    """One row of some environments, in the long way."""
    buffer.add(
        Fragment(
            stream_ids=np.array(envs),
            first_step=row[envs],
            obs=np.stack([obs, next_obs])[:, envs],
            actions=actions[None, envs],
            rewards=rewards[None, envs],
            terminated=terminated[None, envs],
            truncated=truncated[None, envs],
            reset=reset[None, envs],
            extras={"number": obs[None, envs, 0, 1].astype(np.int64)},
        )
    )
    row[envs] += 1


def same_draws(one, other):
    """Everything that two buffers give, updates included."""
    assert len(one) == len(other) > 0
    for seed in range(20):
        mine, its = one.sample(16, 0.5), other.sample(16, 0.5)
        for name in ("obs", "actions", "n_step_returns", "next_obs", "bootstrap_discounts", "ids"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(its, name))
        np.testing.assert_array_equal(mine.importance_weights, its.importance_weights)
        np.testing.assert_array_equal(mine.extras["number"], its.extras["number"])
        errors = np.random.default_rng(seed).standard_normal(16)
        one.update_priorities(mine.ids, errors)
        other.update_priorities(its.ids, errors)


STACKS = [(None, "zero", False), (3, "zero", False), (3, "zero", True), (4, "repeat", True)]


@pytest.mark.parametrize("n_step", [1, 3, (2, 4)])
@pytest.mark.parametrize(("stack", "padding", "in_stacks"), STACKS)
def test_next_step_autoreset_is_one_fragment_per_step(stack, padding, in_stacks, n_step):
    games = Games(seed=1, stack=stack if in_stacks else None, padding=padding)
    by_step, by_fragment = buffers(stack, padding, n_step)
    ended, row = np.zeros(NUM_ENVS, bool), np.zeros(NUM_ENVS, np.int64)
    everyone = list(range(NUM_ENVS))
    for step in range(120):
        obs, frames = games.obs(), games.frames()
        games.reset(np.flatnonzero(ended))
        flags = games.play(np.flatnonzero(~ended))
        actions = games.rng.integers(100, size=NUM_ENVS)
        number = {"number": frames[:, 0, 1].astype(np.int64)}
        new = by_step.add_step(obs, actions, flags[0], games.obs(), *flags[1:], extras=number)
        before = by_fragment.metrics()["num_transitions_added_lifetime"]
        add_rows(by_fragment, row, everyone, frames, games.frames(), actions, *flags, ended)
        assert new == by_fragment.metrics()["num_transitions_added_lifetime"] - before
        ended = flags[1] | flags[2]
        if step % 60 == 59:
            same_draws(by_step, by_fragment)
    assert by_step.metrics() == by_fragment.metrics()
    assert by_step.metrics()["num_gaps_lifetime"] == 0


@pytest.mark.parametrize("n_step", [1, 3, (2, 4)])
@pytest.mark.parametrize(("stack", "padding", "in_stacks"), STACKS)
@pytest.mark.parametrize("mode", ["SameStep", AutoresetMode.DISABLED], ids=str)
def test_environments_that_are_reset_between_steps(mode, stack, padding, in_stacks, n_step):
    """Their resets are rows of their own, beside those of environments that go on."""
    games = Games(seed=2, stack=stack if in_stacks else None, padding=padding)
    by_step, by_fragment = buffers(stack, padding, n_step)
    ended, row = np.zeros(NUM_ENVS, bool), np.zeros(NUM_ENVS, np.int64)
    everyone, nothing = list(range(NUM_ENVS)), np.zeros(NUM_ENVS, bool)
    for step in range(120):
        last = games.frames()
        by_hand = (games.rng.random(NUM_ENVS) < 0.1) & (mode != "SameStep") & (step > 0)
        begins = np.flatnonzero(ended | by_hand)
        games.reset(begins)
        if len(begins):
            zeros = np.zeros(NUM_ENVS, np.int64)
            cut = by_hand & ~ended
            add_rows(by_fragment, row, begins, last, games.frames(), zeros, zeros, nothing, cut,
                     ~nothing)  # fmt: skip
        obs, frames = games.obs(), games.frames()
        flags = games.play(everyone)
        actions = games.rng.integers(100, size=NUM_ENVS)
        number = {"number": frames[:, 0, 1].astype(np.int64)}
        by_step.add_step(
            obs, actions, flags[0], games.obs(), *flags[1:], extras=number, autoreset_mode=mode
        )
        add_rows(by_fragment, row, everyone, frames, games.frames(), actions, *flags, nothing)
        ended = flags[1] | flags[2]
        if step % 60 == 59:
            same_draws(by_step, by_fragment)


def one_env(**options):
    return PrioritizedReplayBuffer(50, RowSpec((2,), **options), n_step=2, seed=0)


def step(buffer, obs, next_obs, terminated=False, truncated=False, reward=1.0, **options):
    values = [np.float32([[value, value]]) for value in (obs, next_obs)]
    flags = [np.array([terminated]), np.array([truncated])]
    return buffer.add_step(values[0], [0], [reward], values[1], *flags, **options)


def test_same_step_autoreset_that_was_not_said_is_refused_and_changes_nothing():
    buffer = one_env()
    step(buffer, 0, 1, terminated=True)
    before = buffer.state()["written"]
    with pytest.raises(ValueError, match="SameStep"):
        step(buffer, 5, 6)
    assert buffer.state()["written"] == before
    assert step(buffer, 5, 6, autoreset_mode="SameStep") == 0
    assert step(buffer, 6, 7) == 1


def test_an_observation_that_is_not_the_last_one_is_refused():
    buffer = one_env()
    step(buffer, 0, 1)
    for mode in ("NextStep", "SameStep"):
        with pytest.raises(ValueError, match="of environment 0 is another one"):
            step(buffer, 5, 6, autoreset_mode=mode)


def test_a_first_observation_that_equals_the_final_one_begins_an_episode_all_the_same():
    """Episodes of one step whose observation never changes: nothing but the mode tells."""
    buffer = one_env()
    for _ in range(5):
        assert step(buffer, 1, 1, terminated=True, autoreset_mode="SameStep") == 1
    batch = buffer.sample(20, 0.5)
    assert set(batch.n_step_returns) == {1.0}
    assert set(batch.bootstrap_discounts) == {0.0}
    buffer = one_env()
    step(buffer, 1, 1, terminated=True)
    with pytest.raises(ValueError, match="autoreset_mode 'NextStep'"):
        step(buffer, 1, 1, terminated=True)


def test_a_step_that_is_refused_changes_nothing_also_where_an_episode_begins():
    buffer = one_env()
    step(buffer, 0, 1, truncated=True)
    before = buffer.state()["written"]
    wrong = [
        ((5, np.nan), {}, "next_obs|obs must be finite"),
        ((5, 6), {"reward": np.inf}, "rewards must be finite"),
        ((5, 6), {"extras": {"x": [1]}}, "extras"),
    ]
    for numbers, options, text in wrong:
        with pytest.raises(ValueError, match=text):
            step(buffer, *numbers, autoreset_mode="SameStep", **options)
        assert buffer.state()["written"] == before
    step(buffer, 5, 6, autoreset_mode="SameStep")
    step(buffer, 6, 7)
    assert {float(obs[0]) for obs in buffer.sample(50, 0.5).obs} == {0.0, 5.0}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rewards": 1.0}, "rewards must have one row for each"),
        ({"actions": [[0], [1]]}, "actions must have one row for each of 1"),
        ({"obs": np.zeros(2, np.float32)}, r"obs must have the shape \(1, 2\)"),
        ({"next_obs": np.zeros((1, 2))}, "next_obs must be float32: got float64"),
        ({"obs": {"a": 1}}, "obs must be one array"),
        ({"terminated": [0]}, "terminated must be bool"),
        ({"autoreset_mode": "Sometimes"}, "autoreset_mode must be one of"),
    ],
)
def test_what_is_no_step_is_refused(change, text):
    good = {"obs": np.zeros((1, 2), np.float32), "actions": [0], "rewards": [0.0]}
    good |= {"next_obs": np.ones((1, 2), np.float32), "terminated": [False], "truncated": [False]}
    buffer = one_env()
    with pytest.raises(ValueError, match=text):
        buffer.add_step(**(good | change))
    assert buffer.state()["written"] == 0
    buffer.add_step(**good)


def test_other_environments_than_last_time_are_refused():
    buffer = one_env()
    step(buffer, 0, 1)
    with pytest.raises(ValueError, match="of 1 environments, the same ones"):
        buffer.add_step(np.ones((2, 2), np.float32), [0, 0], [0, 0], np.ones((2, 2), np.float32),
                        [False, False], [False, False])  # fmt: skip


def test_stacks_with_other_padding_than_the_buffers_are_refused():
    frame = np.ones((1, *FRAME_SHAPE), np.int32)
    stacks = np.stack([frame, frame], axis=1)
    for padding, first in (("zero", stacks), ("repeat", stacks * [[[[0]], [[1]]]])):
        buffer = PrioritizedReplayBuffer(50, RowSpec(FRAME_SHAPE, np.int32, stack=2,
                                                     stack_padding=padding))  # fmt: skip
        with pytest.raises(ValueError, match=f"stack_padding='{padding}'"):
            buffer.add_step(first.astype(np.int32), [0], [0], stacks, [False], [False])


def test_a_tree_of_leaves_is_added_step_by_step():
    leaves = {"image": FrameSpec((2,), np.uint8, stack=2), "speed": FrameSpec(())}
    buffer = PrioritizedReplayBuffer(50, RowSpec(leaves=leaves), seed=0)

    def seen(number):
        return {"image": np.full((1, 2), number, np.uint8), "speed": np.float32([number])}

    for number in range(1, 6):
        buffer.add_step(seen(number), [number], [0.0], seen(number + 1), [False], [False])
    batch = buffer.sample(30, 0.5)
    np.testing.assert_array_equal(batch.obs["speed"], batch.actions)
    np.testing.assert_array_equal(batch.next_obs["image"][:, 0, 0], batch.actions)
    np.testing.assert_array_equal(batch.obs["image"][:, 0, 0], batch.actions - 1)


def test_given_priorities_come_with_a_step():
    buffer = one_env(extras={"priority": ((), np.float32)})
    buffer = PrioritizedReplayBuffer(50, buffer.rows, initial_priority="given", alpha=1.0)
    for number, priority in enumerate([1.0, 2.0, 3.0]):
        step(buffer, number, number + 1, extras={"priority": np.float32([priority])})
    assert buffer.total_mass == pytest.approx(6.0)
    with pytest.raises(ValueError, match="priority"):
        step(buffer, 3, 4, extras={"priority": np.float32([-1])})


def test_after_a_restore_the_next_step_begins_a_history():
    buffer = one_env()
    for number in range(4):
        step(buffer, number, number + 1)
    restored = one_env()
    restored.load_state(buffer.state())
    step(restored, 10, 11)
    step(restored, 11, 12)
    assert restored.metrics()["num_gaps_lifetime"] == 1
    batch = restored.sample(100, 0.5)
    ends = {(float(a[0]), float(b[0])) for a, b in zip(batch.obs, batch.next_obs, strict=True)}
    assert ends == {(0, 2), (1, 3), (2, 4), (3, 4), (10, 12)}
