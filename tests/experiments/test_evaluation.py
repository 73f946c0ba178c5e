# SPDX-License-Identifier: MIT
"""Evaluation counts whole episodes, the same number whatever their length."""

from collections import Counter
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from rllib_per.experiments.evaluation import (
    EvaluationStoppedError,
    GreedyPolicy,
    play_episodes,
)
from rllib_per.experiments.experiment import build_experiment
from rllib_per.experiments.exporting import _traced
from rllib_per.experiments.greedy_play import FINAL, PERIODIC, GreedyPlay
from rllib_per.experiments.policy_file import save_policy
from rllib_per.experiments.yaml_source import parse_yaml
from rllib_per.learning.module import ApexDQNModule
from rllib_per.observations import WrongDataError
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
        play_episodes(
            vector(5), always_one, 1000, 0, should_stop=lambda: asked.append(1) or len(asked) > 13
        )
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
        "num_episodes_cut": 0,
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
    with pytest.raises(ValueError, match="has the shape"):
        policy.set_state(state)
    with pytest.raises(ValueError, match="of another network"):
        policy.set_state({})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_policy_that_is_not_finite_does_not_replace_one_that_is(tmp_path, value):
    text = "environment: {env: CartPole-v1}\nstop: {updates: 1}"
    experiment = build_experiment(parse_yaml(text, "x.yaml"))
    path = tmp_path / "policy.safetensors"
    save_policy({"layer": np.ones(3, np.float32)}, path, experiment)
    before = path.read_bytes()
    with pytest.raises(TrainingDivergedError, match="layer holds NaN"):
        save_policy({"layer": np.array([1.0, value], np.float32)}, path, experiment)
    assert path.read_bytes() == before
    with files_of_at_most(10), pytest.raises(OSError, match="too large"):
        save_policy({"layer": np.zeros(3, np.float32)}, path, experiment)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Picky(gym.vector.VectorEnv):
    """A vector environment of a user's own, as strict as Gymnasium's CartPoleVectorEnv."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs):
        self.num_envs, self.seeds = num_envs, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        flags = np.zeros((2, self.num_envs), np.bool_)
        return np.zeros((self.num_envs, 1), np.float32), np.ones(self.num_envs), *flags, {}


def test_episodes_without_an_end_are_cut_and_counted():
    summary = play_episodes(vector(10_000, 3), always_one, 5, 0, max_length=20).summary()
    assert (summary["num_episodes"], summary["num_episodes_cut"]) == (5, 3)
    result = play_episodes(vector(10_000, 3), always_one, 5, 0, max_length=20)
    assert Counter(zip(result.lengths, result.was_cut, strict=True)) == {
        (20, True): 3,
        (3, False): 2,
    }
    assert result.returns == [float(length) for length in result.lengths]


def test_an_episode_that_ends_at_the_bound_is_not_cut():
    assert play_episodes(vector(20, 20), always_one, 4, 0, max_length=20).was_cut == [False] * 4


def test_after_a_cut_episode_the_next_begins_with_a_reset_of_another_seed():
    env = Picky(2)
    assert play_episodes(env, always_one, 5, 7, max_length=4).lengths == [4] * 5
    assert len(set(env.seeds)) == 3
    again = Picky(2)
    play_episodes(again, always_one, 5, 7, max_length=4)
    assert again.seeds == env.seeds


def test_a_vector_environment_of_ones_own_is_seeded_with_one_python_integer():
    env = Picky(3)
    play_episodes(env, always_one, 3, [5, 1, 2], max_length=2)
    assert [type(seed) for seed in env.seeds] == [int]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_evaluation_of_what_is_no_number_names_environment_and_step(value):
    class Broken(FixedLength):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, value if self.t == 3 else reward, *rest

    env = gym.vector.SyncVectorEnv([lambda: FixedLength(9), lambda: Broken(9)])
    with pytest.raises(WrongDataError, match=f"environment 1 .* gave {value} as reward of step 3"):
        play_episodes(env, always_one, 2, 0)


def policy_for(environment, **evaluation):
    text = f"environment: {environment}\nmodel: {{encoder_hiddens: [8]}}\nstop: {{updates: 1}}"
    source = parse_yaml(text, "x.yaml")
    for key, value in evaluation.items():
        source.override(f"evaluation.{key}={value}")
    return GreedyPolicy(build_experiment(source))


def test_gymnasiums_own_vector_environment_is_evaluated():
    text = (
        "environment: {env: CartPole-v1}\nenv_runners: {gym_env_vectorize_mode: vector_entry_point}"
        "\nmodel: {encoder_hiddens: [8]}\nstop: {updates: 1}"
    )
    policy = GreedyPolicy(build_experiment(parse_yaml(text, "x.yaml")))
    results = [policy.evaluate(6, 3, seed) for seed in ([1, 2, 3], [1, 2, 3], 4)]
    assert results[0] == results[1]
    assert results[0] != results[2]
    assert len(results[0].returns) == 6


def bound(environment, **evaluation):
    policy = policy_for(environment, **evaluation)
    env = policy.make_env(1)
    try:
        return policy.max_length(env)
    finally:
        env.close()


def test_the_bound_is_the_users_or_the_environments_or_a_large_number():
    limit = "env_config: {max_episode_steps: 2000}"
    assert bound("{env: CartPole-v1}") == 500
    assert bound(f"{{env: CartPole-v1, {limit}}}") == 2000
    assert bound("{env: CartPole-v1}", max_env_steps_per_episode=70) == 70
    assert bound("{env: CartPole-v1, env_config: {max_episode_steps: -1}}") == 100_000
    assert bound("{env: rllib_per/BlindCliffwalk-v1}") == 100_000


def test_the_bound_cuts_greedy_play():
    policy = policy_for("{env: rllib_per/BlindCliffwalk-v1}", max_env_steps_per_episode=1)
    assert policy.evaluate(4, 2, 0).lengths == [1] * 4


def test_trees_are_played_and_their_parts_left_out():
    text = """
environment:
  env: rllib_per/LeafProbe-v1
  env_config: {signal: discrete, leaves: [discrete, vector, multi_binary]}
  drop_leaves: [vector]
model: {encoder_hiddens: [8], hiddens: [8]}
stop: {env_steps: 1}
"""
    policy = GreedyPolicy(build_experiment(parse_yaml(text, "x.yaml")))
    assert sorted(policy.module.observation_space) == ["discrete", "multi_binary"]
    assert sorted({*policy.evaluate(20, 4, seed=0).returns}) == [-1.0, 1.0]


def test_a_leaf_that_is_no_number_is_named():
    class Breaks(FixedLength):
        observation_space = gym.spaces.Dict(x=FixedLength.observation_space)

        def reset(self, **kwargs):
            return {"x": super().reset(**kwargs)[0]}, {}

        def step(self, action):
            obs, *more = super().step(action)
            return {"x": obs * np.nan}, *more

    env = gym.vector.SyncVectorEnv([lambda: Breaks(9)], autoreset_mode="NextStep")
    with pytest.raises(WrongDataError, match="gave nan as x of the observation of step 1"):
        play_episodes(env, lambda obs: always_one(obs["x"]), 1, seed=0)


@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_greedy_play_takes_no_illegal_action(masks_in):
    """The probe raises on any. Its greedy return of 1 needs the action that the mask decides on."""
    environment = f"{{env: rllib_per/MaskProbe-v1, env_config: {{masks_in: {masks_in}}}}}"
    policy = policy_for(environment)
    state = {name: np.zeros_like(value) for name, value in policy.module.state_dict().items()}
    bias = "q_network.head.advantage.2.bias"
    policy.set_state(state | {bias: np.array([0.0, 1.0, 2.0], np.float32)})
    assert policy.evaluate(5, 2, seed=0).returns == [1.0] * 5
    illegal_is_best = np.array([0.0, -1.0, 2.0], np.float32)
    policy.set_state(state | {bias: illegal_is_best})
    assert policy.evaluate(5, 2, seed=0).returns == [0.5] * 5


class ByItself(ApexDQNModule):
    """Takes the last action that is legal, whatever the Q-values say."""

    def _forward_inference(self, batch, **kwargs):
        mask = batch["obs"]["action_mask"]
        return {"actions": mask.shape[1] - 1 - mask.flip(1).argmax(1)}


class Illegal(ByItself):
    def _forward_inference(self, batch, **kwargs):
        return {"actions": batch["obs"]["action_mask"].argmin(1)}


def test_a_module_that_acts_by_itself_is_played_so():
    def policy_of(kind):
        text = """
environment: {env: rllib_per/MaskProbe-v1}
model: {module_class: tests.experiments.test_evaluation.%s}
stop: {env_steps: 1}
"""
        source = parse_yaml(text % kind, "x.yaml")
        return GreedyPolicy(build_experiment(source, allow_custom_classes=True))

    policy = policy_of("ByItself")
    env = policy.make_env(8)
    obs = env.reset(seed=1)[0]
    legal = obs["action_mask"]
    last = [max(np.flatnonzero(row)) for row in legal]
    assert policy.actions(obs).tolist() == last
    policy.evaluate(4, 2, seed=0)
    with pytest.raises(ValueError, match=r"ByItself\._forward_inference chooses.* as \.zip"):
        _traced(policy)
    with pytest.raises(ValueError, match=r"Illegal\._forward_inference must give legal actions"):
        policy_of("Illegal").evaluate(4, 2, seed=0)


def test_no_two_evaluations_of_a_run_have_the_same_seeds():
    """Of its experiment, purpose and env steps; another seed of the experiment has others."""
    asked = []
    policy = SimpleNamespace(
        update=lambda *weights: None,
        evaluate=lambda episodes, envs, seed, stop, report=None: asked.append(tuple(seed)),
    )
    for seed in (0, 1):
        experiment = SimpleNamespace(seed=seed, evaluation=SimpleNamespace(num_envs=2))
        for env_steps in (0, 1000):
            algorithm = SimpleNamespace(progress=SimpleNamespace(env_steps=env_steps))
            play = GreedyPlay(experiment, algorithm, policy)
            play._bring_up_to_date = lambda: None
            for purpose in (PERIODIC, FINAL):
                play.evaluate(3, purpose)
    assert len(set(asked)) == len(asked) == 8
