# SPDX-License-Identifier: MIT
"""Masks of legal actions: found, checked, and shown beside what an environment observes."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rllib_per.observations import WrongDataError
from rllib_per.runners.masked_env import MaskedVectorEnv, find_source
from rllib_per.runners.sync_vector_env import ColumnSyncVectorEnv
from tests.support.masked_env import NUM_ACTIONS, MaskedEnv, mask_of

LATE = 7


def vector_env(kind=ColumnSyncVectorEnv, num_envs=2, **config):
    made = [partial(MaskedEnv, config, index) for index in range(num_envs)]
    if kind is ColumnSyncVectorEnv:
        return kind(made)
    return kind(made, autoreset_mode=AutoresetMode.NEXT_STEP)


def masked(kind=ColumnSyncVectorEnv, **config):
    return MaskedVectorEnv(vector_env(kind, **config), config.get("masks_in", "info"))


def legal_actions(obs, rng):
    """Random legal ones; 0 where there is none."""
    return np.array([rng.choice([*np.flatnonzero(row), 0][: row.sum() or 1])
                     for row in obs["action_mask"]])  # fmt: skip


def never():
    raise AssertionError("no reset is needed")


@pytest.mark.parametrize("kind", [SyncVectorEnv, ColumnSyncVectorEnv])
@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_every_state_has_its_own_mask(kind, masks_in):
    env, rng = masked(kind, masks_in=masks_in), np.random.default_rng(0)
    name = "observations" if masks_in == "info" else "numbers"
    obs, _ = env.reset(seed=0)
    terminated, num_terminal = np.zeros(2, np.bool_), 0
    for _ in range(40):
        for i in range(2):
            expected = 0 * obs["action_mask"][i] if terminated[i] else mask_of(obs[name][i])
            assert obs["action_mask"][i].tolist() == expected.tolist()
            num_terminal += terminated[i]
        assert env.observation_space.contains(obs)
        obs, _, terminated, _, _ = env.step(legal_actions(obs, rng))
    assert num_terminal == 10


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int64, np.float32])
def test_a_mask_is_of_zeros_and_ones_in_any_dtype(dtype):
    for masks_in in ("info", "observation"):
        env = masked(masks_in=masks_in, dtype=dtype)
        obs, _ = env.reset()
        assert obs["action_mask"].dtype == np.int8
        assert obs["action_mask"][1].tolist() == mask_of([1, 0, 0]).tolist()


WRONG = {
    "shape": (lambda mask: mask[:3], r"an array of shape \(3,\) and dtype int8"),
    "values": (lambda mask: 2 * mask, r"an array of shape \(5,\) and dtype int8, \[.*2"),
    "fractions": (lambda mask: mask - 0.5, r"an array of shape \(5,\) and dtype float64, \["),
    "vanished": (lambda mask: None, "none, from"),
    "none legal": (lambda mask: 0 * mask, "none that is legal. End the episode in such a state"),
    "text": (lambda mask: "all", "str 'all'"),
    "ragged": (lambda mask: [1, [2]], r"list \[1, \[2\]\]"),
}


def second_goes_wrong(answer):
    """Configs of two environments, of which one begins to answer otherwise after some steps."""
    return {}, {"change": lambda mask, step: answer(mask) if step >= LATE else mask}


def play(env, num_steps=20):
    obs, rng = env.reset()[0], np.random.default_rng(0)
    for _ in range(num_steps):
        obs = env.step(legal_actions(obs, rng))[0]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_mask_names_the_environment_and_what_came(name):
    answer, complaint = WRONG[name]
    configs = second_goes_wrong(answer)
    base = ColumnSyncVectorEnv([partial(MaskedEnv, each, i) for i, each in enumerate(configs)])
    with pytest.raises(
        WrongDataError, match=rf"infos\['action_mask'\] must .*got {complaint}.* environment 1 of"
    ):
        play(MaskedVectorEnv(base, "info"))


class OwnVectorEnv(gym.vector.VectorWrapper):
    """One whose infos are of another form from some step on."""

    def __init__(self, env, change):
        super().__init__(env)
        self._change, self._num_steps = change, 0

    def step(self, actions):
        *others, infos = self.env.step(actions)
        self._num_steps += 1
        return (*others, self._change(infos) if self._num_steps >= LATE else infos)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda infos: {}, "got none, from step"),
        (lambda infos: {"action_mask": infos["action_mask"][0]}, r"an array of shape \(5,\)"),
        (lambda infos: {"action_mask": infos["action_mask"][:1]}, r"array of shape \(1, 5\)"),
        (lambda infos: {"action_mask": infos["action_mask"].T}, r"array of shape \(5, 2\)"),
        (lambda infos: {"action_mask": np.int8(1)}, "int8 "),
    ],
)
def test_a_users_vector_environment_is_checked_alike(change, complaint):
    env = MaskedVectorEnv(OwnVectorEnv(vector_env(SyncVectorEnv), change), "info")
    with pytest.raises(WrongDataError, match=complaint):
        play(env)


def test_a_wrong_first_mask_is_refused_by_reset():
    with pytest.raises(WrongDataError, match=r"got an array.*from reset\(\) of environment 0"):
        masked(change=lambda mask, _: mask[:2]).reset()
    with pytest.raises(WrongDataError, match=r"The leaf 'action_mask' must be 5 numbers"):
        masked(SyncVectorEnv, masks_in="observation", change=lambda mask, _: mask + 1).reset()


@pytest.mark.parametrize(
    ("asked", "masks_in", "found"),
    [
        ("auto", "info", "info"),
        ("info", "info", "info"),
        ("none", "info", "none"),
        ("auto", "observation", "observation"),
        ("observation", "observation", "observation"),
        ("none", "observation", "none"),
    ],
)
def test_where_masks_are_is_found_from_the_environment_and_overruled(asked, masks_in, found):
    env = vector_env(masks_in=masks_in)
    looks = asked == "auto" and masks_in == "info"
    assert find_source(env, asked, (lambda: env.reset()[1]) if looks else never) == found


def test_an_environment_without_masks_has_none():
    env = ColumnSyncVectorEnv([partial(gym.make, "CartPole-v1")])
    assert find_source(env, "auto", lambda: env.reset()[1]) == "none"


@pytest.mark.parametrize(
    ("asked", "masks_in", "complaint"),
    [
        ("observation", "info", "'observation' needs Dict observations with a leaf 'action_mask'"),
        ("info", "observation", "'info' needs observations without a leaf 'action_mask'"),
    ],
)
def test_masks_that_are_not_where_they_are_said_to_be_are_refused(asked, masks_in, complaint):
    with pytest.raises(ValueError, match=complaint):
        find_source(vector_env(masks_in=masks_in), asked, never)


@pytest.mark.parametrize(
    ("leaves", "complaint"),
    [
        ({"x": gym.spaces.Discrete(2), "action_mask": gym.spaces.MultiBinary(4)},
         r"one number for each action, as MultiBinary\(5\).*: got MultiBinary\(4\)"),
        ({"x": gym.spaces.Discrete(2), "action_mask": gym.spaces.Discrete(5)},
         r"got Discrete\(5\)"),
        ({"action_mask": gym.spaces.MultiBinary(5)}, "more than the leaf 'action_mask'"),
    ],
)  # fmt: skip
def test_a_leaf_of_this_name_that_is_no_mask_is_refused(leaves, complaint):
    env = vector_env(masks_in="observation")
    env.single_observation_space = gym.spaces.Dict(leaves)
    with pytest.raises(ValueError, match=complaint):
        find_source(env, "auto", never)
    assert find_source(env, "none", never) == "none"
    assert NUM_ACTIONS == 5
