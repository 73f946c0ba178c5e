# SPDX-License-Identifier: MIT
"""`environment.wrappers`: what is written, what is refused and where, and what a policy keeps."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID
from safetensors.numpy import load_file

from rllib_per.envs.statistics import statistics_of
from rllib_per.experiments.environment_check import check_algorithm, check_environment
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import build_experiment, load_experiment
from rllib_per.experiments.greedy_play import FINAL, GreedyPlay
from rllib_per.experiments.policy_file import save_policy
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.yaml_source import ConfigError, parse_yaml

YAML = """
environment:
  env: CartPole-v1
  wrappers:
    - {TimeLimit: {max_episode_steps: 30}}
    - NormalizeObservation
    - NormalizeReward
    - FrameStackObservation:
        stack_size: 2
model: {encoder_hiddens: [8], hiddens: [8]}
stop: {env_steps: 100}
"""
OWN = """
import gymnasium as gym

class Scaled(gym.ObservationWrapper):
    def __init__(self, env, factor=2.0):
        super().__init__(env)
        self.factor = factor

    def observation(self, observation):
        return self.factor * observation
"""


def read(text=YAML, **options):
    return build_experiment(parse_yaml(text, "here"), **options)


def test_they_stand_around_the_environment_and_in_the_resolved_file():
    experiment = read()
    assert read(experiment.to_yaml()) == experiment
    check_environment(experiment)
    env = GreedyPolicy(experiment).make_env(2)
    assert env.single_observation_space.shape == (2, 4)
    env.close()


@pytest.mark.parametrize(
    ("given", "instead", "problem"),
    [
        ("NormalizeReward", "NormaliseReward",
         "here:7: environment.wrappers.2: must be one of Gymnasium's wrappers: got "
         "'NormaliseReward'; did you mean 'NormalizeReward'?"),
        ("max_episode_steps", "steps", "here:5: environment.wrappers.0: TimeLimit has no argument"),
        ("stack_size: 2", "2", "here:8: environment.wrappers.3: a wrapper must be written as"),
        ("NormalizeReward", "7", "here:7: environment.wrappers.2: must be a valid string or"),
        ("NormalizeReward", "my.Wrapper", "here:7: environment.wrappers.2: 'my.Wrapper' would be"),
        ("NormalizeReward", "{a.py:B: {}}", "here:7: environment.wrappers.2: 'a.py:B' would be"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(given, instead, problem):
    with pytest.raises(ConfigError) as caught:
        read(YAML.replace(given, instead))
    assert problem in str(caught.value)


def test_what_does_not_fit_is_told_before_anything_starts():
    with pytest.raises(
        ConfigError, match=r"^environment.wrappers: wrapper 3, GrayscaleObservation"
    ):
        check_environment(read(YAML.replace("NormalizeReward", "GrayscaleObservation")))
    in_processes = YAML + "env_runners: {gym_env_vectorize_mode: async}\n"
    with pytest.raises(ConfigError, match="statistics of its own in each process"):
        check_algorithm(read(in_processes))


def test_wrappers_of_ones_own_stand_beside_the_yaml(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_scaled.py").write_text(OWN)
    for written in ("own_scaled.py:Scaled", "{own_scaled.Scaled: {factor: 2.0}}"):
        (tmp_path / "x.yaml").write_text(YAML.replace("- NormalizeObservation", f"- {written}"))
        experiment = load_experiment(tmp_path / "x.yaml", allow_custom_classes=True)
        env = GreedyPolicy(experiment).make_env(1)
        assert env.envs[0].env.factor == 2.0
        env.close()


@pytest.fixture
def run(tmp_path):
    """A run that normalized observations of mean 1 and variance 4."""
    experiment, folder = read(), RunFolder(tmp_path)
    folder.config.write_text(experiment.to_yaml())
    policy = GreedyPolicy(experiment)
    state = {k: v.numpy() for k, v in policy.module.state_dict().items()}
    statistics = {
        "observation0.mean": np.ones(4),
        "observation0.var": np.full(4, 4.0),
        "observation0.count": np.array(50.0),
        "reward0.mean": np.array(0.0),
        "reward0.var": np.array(9.0),
        "reward0.count": np.array(48.0),
    }
    save_policy(state, folder.policy, experiment, statistics)
    return folder


def test_a_saved_policy_plays_by_the_statistics_of_its_training(run):
    policy = GreedyPolicy.load(run, run.experiment())
    env = policy.make_env(1)
    frame = env.reset(seed=3)[0][0, -1]
    expected = (env.envs[0].unwrapped.state - 1) / np.sqrt(4 + 1e-8)
    np.testing.assert_allclose(frame, expected, rtol=1e-5)
    assert env.step(np.array([0]))[1] == 1.0  # Rewards are the environment's own.
    env.close()
    played = policy.evaluate(3, 2, seed=1)
    assert played.returns == played.lengths
    assert max(played.lengths) <= 30
    again = GreedyPolicy.load(run, run.experiment()).evaluate(3, 2, seed=1)
    assert again == played  # What was played changed nothing.


def test_a_run_plays_and_saves_by_the_statistics_of_the_moment(run, tmp_path):
    policy = GreedyPolicy(read())
    state = {k: v.numpy() for k, v in policy.module.state_dict().items()}
    tensors = load_file(run.policy)
    statistics = {k[12:]: v for k, v in tensors.items() if k.startswith("environment.")}
    algorithm = SimpleNamespace(
        progress=SimpleNamespace(env_steps=0),
        learner_group=SimpleNamespace(get_weights=lambda _: {DEFAULT_MODULE_ID: state}),
        env_statistics=lambda: statistics,
    )
    play = GreedyPlay(read(), algorithm, policy)
    play.evaluate(1, FINAL)
    env = policy.make_env(2)
    np.testing.assert_equal(statistics_of(env)["observation0.mean"], np.ones(4))
    env.close()
    play.save_policy(tmp_path / "again.safetensors")
    assert load_file(tmp_path / "again.safetensors").keys() == tensors.keys()


def test_statistics_of_another_environment_are_refused(run):
    without = YAML.replace("    - {TimeLimit", "    - FlattenObservation\n    - {TimeLimit")
    other = without.replace("CartPole-v1", "Acrobot-v1")
    with pytest.raises(ValueError, match=r"policy.safetensors: .*(network|environment)"):
        GreedyPolicy.load(run, read(other))
