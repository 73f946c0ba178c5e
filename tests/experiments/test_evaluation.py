# SPDX-License-Identifier: MIT
"""Evaluation counts whole episodes, the same number whatever their length."""

from collections import Counter

import gymnasium as gym
import numpy as np
import pytest

from rllib_per.experiments.evaluation import (
    EvaluationStoppedError,
    GreedyPolicy,
    play_episodes,
    save_policy,
)
from rllib_per.experiments.experiment import build_experiment
from rllib_per.experiments.yaml_source import parse_yaml
from rllib_per.replay import TrainingDivergedError
from tests.support.full_disk import files_of_at_most


class FixedLength(gym.Env):
    """Episodes of `length` steps, each rewarding 1 for action 1."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), float(action), self.t == self.length, False, {}


def vector(*lengths):
    return gym.vector.SyncVectorEnv(
        [lambda length=length: FixedLength(length) for length in lengths],
        autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP,
    )


def always_one(obs):
    return np.ones(len(obs), np.int64)


def test_short_episodes_are_not_favoured():
    result = play_episodes(vector(1, 10, 100), always_one, 7, seed=0)
    assert Counter(result.lengths) == {1: 3, 10: 2, 100: 2}


def test_the_row_on_which_an_environment_resets_is_no_step():
    result = play_episodes(vector(5), always_one, 3, seed=0)
    assert result.lengths == [5, 5, 5]
    assert result.returns == [5.0, 5.0, 5.0]


def test_an_evaluation_stops_at_the_step_on_which_it_is_told_to():
    asked = []
    with pytest.raises(EvaluationStoppedError, match="after 2 of 1000 episodes"):
        play_episodes(vector(5), always_one, 1000, 0, lambda: asked.append(1) or len(asked) > 13)
    assert len(asked) == 14


def test_the_summary_has_rllibs_keys():
    summary = play_episodes(vector(2, 4), always_one, 2, seed=0).summary()
    assert summary == {
        "episode_return_mean": 3.0,
        "episode_return_min": 2.0,
        "episode_return_max": 4.0,
        "episode_return_std": 1.0,
        "episode_len_mean": 3.0,
        "episode_len_min": 2,
        "episode_len_max": 4,
        "num_episodes": 2,
    }


@pytest.fixture(scope="module")
def policy():
    text = "environment: {env: CartPole-v1}\nmodel: {encoder_hiddens: [8]}\nstop: {updates: 1}"
    return GreedyPolicy(build_experiment(parse_yaml(text, "x.yaml")))


def test_the_same_seed_plays_the_same_episodes_and_another_does_not(policy):
    returns = [policy.evaluate(20, 5, seed).returns for seed in (1, 1, 2)]
    assert returns[0] == returns[1]
    assert returns[0] != returns[2]


def test_weights_of_another_network_are_refused(policy):
    state = {name: np.zeros(3) for name in policy.state_names}
    with pytest.raises(ValueError, match="must have shape"):
        policy.set_state(state)
    with pytest.raises(ValueError, match="not of this network"):
        policy.set_state({})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_policy_that_is_not_finite_does_not_replace_one_that_is(tmp_path, value):
    text = "environment: {env: CartPole-v1}\nstop: {updates: 1}"
    experiment = build_experiment(parse_yaml(text, "x.yaml"))
    path = tmp_path / "policy.safetensors"
    save_policy({"layer": np.ones(3, np.float32)}, path, experiment)
    before = path.read_bytes()
    with pytest.raises(TrainingDivergedError, match="layer has NaN or infinite"):
        save_policy({"layer": np.array([1.0, value], np.float32)}, path, experiment)
    assert path.read_bytes() == before
    with files_of_at_most(10), pytest.raises(OSError, match="too large"):
        save_policy({"layer": np.zeros(3, np.float32)}, path, experiment)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
