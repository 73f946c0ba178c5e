# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rllib_per.envs  # noqa: F401  (registers them)
from rllib_per.envs.blind_cliffwalk import BlindCliffwalk
from rllib_per.envs.dict_cartpole import LEAVES
from rllib_per.envs.leaf_probe import SPACES

PROBES = [
    "ValueProbe",
    "ObservationProbe",
    "DiscountProbe",
    "ActionProbe",
    "ChainProbe",
    "LeafProbe",
    "BlindCliffwalk",
]


def make(name, **kwargs):
    return gym.make(f"rllib_per/{name}-v1", **kwargs)


def play(env, actions, seed=0):
    """Observations, rewards and the last row's flags."""
    obs, _ = env.reset(seed=seed)
    observations, rewards = [obs.tolist()], []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(obs.tolist())
        rewards.append(reward)
    return observations, rewards, (terminated, truncated)


@pytest.mark.parametrize("name", PROBES)
def test_gymnasium_finds_nothing_wrong(name):
    check_env(make(name, disable_env_checker=True).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("action", [0, 1])
def test_the_value_probe_pays_one(action):
    assert play(make("ValueProbe"), [action]) == ([[0.0], [0.0]], [1.0], (True, False))


def test_the_observation_probe_pays_what_it_shows():
    env, shown = make("ObservationProbe"), set()
    for seed in range(20):
        observations, rewards, _ = play(env, [0], seed)
        assert observations[0] == rewards
        shown.add(rewards[0])
    assert shown == {-1.0, 1.0}


def test_the_discount_probe_pays_late():
    assert play(make("DiscountProbe"), [0, 1]) == (
        [[0.0], [1.0], [2.0]],
        [0.0, 1.0],
        (True, False),
    )


def test_the_action_probe_pays_for_the_action():
    assert [play(make("ActionProbe"), [action])[1] for action in (0, 1)] == [[-1.0], [1.0]]


def test_the_chain_pays_most_at_its_far_end():
    forth = [state % 2 for state in (1, 2, 3, 4)] + [1] * 11
    assert play(make("ChainProbe"), forth)[1:] == ([0.0] * 3 + [1.0] * 12, (True, False))
    observations, rewards, _ = play(make("ChainProbe"), [0] + [1] * 14)
    assert rewards == [0.001] * 15
    np.testing.assert_array_equal(observations[:2], np.eye(6)[[1, 0]])


@pytest.mark.parametrize("signal", sorted(SPACES))
def test_only_the_signals_leaf_tells_which_action_pays(signal):
    env = make("LeafProbe", signal=signal)
    signs = {
        "discrete": lambda leaf: leaf in (3, 6),
        "image": lambda leaf: leaf[0, 0, 0] > 0,
        "multi_binary": lambda leaf: leaf[2] == 1,
        "multi_discrete": lambda leaf: leaf[1] == 3,
        "vector": lambda leaf: leaf[1] > 0,
    }
    rows = []
    for seed in range(60):
        obs, _ = env.reset(seed=seed)
        pays = env.step(1)[1] > 0
        rows.append([read(obs[name]) == pays for name, read in signs.items()])
    agree = dict(zip(signs, np.mean(rows, axis=0), strict=True))
    assert agree.pop(signal) == 1.0
    # Of 60 coins: five standard deviations are 5·sqrt(¼/60) = 0.32.
    assert all(abs(share - 0.5) < 0.33 for share in agree.values())


def test_the_leaf_probe_shows_what_it_is_asked_for():
    env = make("LeafProbe", signal="discrete", leaves=["discrete", "vector"], nested=True)
    assert list(env.observation_space) == ["pair"]
    check_env(env.unwrapped, skip_render_check=True)
    with pytest.raises(ValueError, match="`signal` must be one of the leaves"):
        make("LeafProbe", signal="image", leaves=["vector"])


def test_the_cliffwalk_pays_only_at_its_end():
    env = make("BlindCliffwalk", num_states=4)
    right = [BlindCliffwalk.right_action(state) for state in range(4)]
    assert set(right) == {0, 1}
    observations, rewards, flags = play(env, right)
    np.testing.assert_array_equal(observations[:4], np.eye(4))
    assert (rewards, flags) == ([0.0, 0.0, 0.0, 1.0], (True, False))


@pytest.mark.parametrize("state", range(4))
def test_one_wrong_action_falls_off_the_cliff(state):
    actions = [BlindCliffwalk.right_action(s) for s in range(state + 1)]
    actions[-1] = 1 - actions[-1]
    _, rewards, flags = play(make("BlindCliffwalk", num_states=4), actions)
    assert (sum(rewards), flags) == (0.0, (True, False))


def test_a_cliffwalk_needs_a_state():
    with pytest.raises(ValueError, match="`num_states` must be at least 1: got 0"):
        BlindCliffwalk(0)


def test_cartpole_is_penalized_for_falling_and_not_for_standing():
    env = make("FailureCartPole", failure_reward=-7.0)
    _, rewards, flags = play(env, [0] * 9)
    while not flags[0]:
        rewards.append(0)
        flags = env.step(0)[2:4]
    env = make("FailureCartPole", failure_reward=-7.0, max_episode_steps=3)
    assert play(env, [0, 1, 0])[1:] == ([1.0, 1.0, 1.0], (False, True))
    env = make("FailureCartPole", failure_reward=-7.0)
    env.reset(seed=0)
    rows = []
    while not rows or not rows[-1][2]:
        rows.append(env.step(0))
    assert [row[1] for row in rows] == [1.0] * (len(rows) - 1) + [-7.0]
    assert env.get_wrapper_attr("_max_episode_steps") == 4000


@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_the_mask_probe_pays_for_an_action_that_is_not_always_legal(masks_in):
    env = make("MaskProbe", masks_in=masks_in)

    def episode(*actions):
        shown, rewards = [env.reset()], []
        for action in actions:
            obs, reward, terminated, _, info = env.step(action)
            shown.append((obs, info))
            rewards.append(reward)
        masks = [(obs if masks_in == "observation" else info)["action_mask"] for obs, info in shown]
        return [mask.tolist() for mask in masks], rewards, terminated

    start, nothing = [1, 1, 0], [0, 0, 0]
    assert episode(0, 0) == ([start, [1, 0, 0], nothing], [0.5, 0.0], True)
    assert episode(1, 0) == ([start, [1, 0, 1], nothing], [0.0, 0.0], True)
    assert episode(1, 2) == ([start, [1, 0, 1], nothing], [0.0, 1.0], True)


def test_an_illegal_action_of_the_mask_probe_raises():
    for actions in ([2], [0, 2], [0, 1], [1, 1]):
        env = make("MaskProbe")
        env.reset()
        for action in actions[:-1]:
            env.step(action)
        with pytest.raises(ValueError, match=f"action {actions[-1]} is illegal: legal are"):
            env.step(actions[-1])


def test_cartpole_of_leaves_is_cartpole():
    env, plain = make("DictCartPole"), gym.make("CartPole-v1")
    assert env.spec.max_episode_steps == plain.spec.max_episode_steps
    obs, expected = env.reset(seed=3)[0], plain.reset(seed=3)[0]
    for action in (0, 1, 1, 0, 1):
        assert all(leaf in env.observation_space[name] for name, leaf in obs.items())
        np.testing.assert_array_equal(np.concatenate([obs[name] for name in LEAVES]), expected)
        obs, expected = env.step(action)[0], plain.step(action)[0]
