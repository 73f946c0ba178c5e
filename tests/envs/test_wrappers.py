# SPDX-License-Identifier: MIT
"""Wrappers by name: which there are, with which arguments, and around what they fit."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers

from rllib_per.envs.wrappers import KNOWN, NOT_BY_NAME, WrapperError, as_layer, layers, wrapped

# Every known wrapper with the arguments that it needs, as YAML has them.
ARGUMENTS = {
    "AddRenderObservation": {},
    "AddWhiteNoise": {"probability_of_noise_per_pixel": 0.5},
    "AtariPreprocessing": {"screen_size": [42, 42]},
    "ClipAction": {},
    "ClipReward": {"min_reward": -1, "max_reward": 1},
    "DelayObservation": {"delay": 2},
    "DiscretizeAction": {"bins": 3},
    "DiscretizeObservation": {"bins": 3},
    "DtypeObservation": {"dtype": "float64"},
    "FilterObservation": {"filter_keys": ["a"]},
    "FlattenObservation": None,
    "FrameStackObservation": {"stack_size": 4, "padding_type": "zero"},
    "GrayscaleObservation": {"keep_dim": True},
    "MaxAndSkipObservation": {"skip": 2},
    "NormalizeObservation": {"epsilon": 1e-6},
    "NormalizeReward": {"gamma": 0.9},
    "ObstructView": {"obstructed_pixels_ratio": 0.1, "obstruction_width": 2},
    "RecordEpisodeStatistics": {"buffer_length": 5},
    "RescaleAction": {"min_action": [-1.0], "max_action": [2.0]},
    "RescaleObservation": {"min_obs": 0, "max_obs": 1.0},
    "ReshapeObservation": {"shape": [4, 3, 8]},
    "ResizeObservation": {"shape": [6, 6]},
    "StickyAction": {"repeat_action_probability": 0.25, "repeat_action_duration": [2, 3]},
    "TimeAwareObservation": {"normalize_time": False},
    "TimeLimit": {"max_episode_steps": 3},
}


class Anything(gym.Env):
    """With spaces of any kind; it draws pictures."""

    render_mode = "rgb_array"

    def __init__(self, observations=None, actions=None):
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 9}
        self.observation_space = observations or gym.spaces.Box(0, 255, (4, 8, 3), np.uint8)
        self.action_space = actions or gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert action in self.action_space
        return self.observation_space.sample(), 5.0, False, False, {}

    def render(self):
        return np.zeros((4, 8, 3), np.uint8)


CONTINUOUS = gym.spaces.Box(-2.0, 2.0, (1,))
MADE = {
    "ClipAction": {"actions": CONTINUOUS},
    "RescaleAction": {"actions": CONTINUOUS},
    "DiscretizeAction": {"actions": CONTINUOUS},
    "DiscretizeObservation": {"observations": CONTINUOUS},
    "TimeAwareObservation": {"observations": CONTINUOUS},
    "FilterObservation": {
        "observations": gym.spaces.Dict({"a": CONTINUOUS, "b": gym.spaces.Discrete(2)})
    },
}


def test_every_wrapper_that_gymnasium_offers_has_a_verdict():
    offered = set(wrappers.__all__) - {"vector"}
    assert offered - KNOWN - NOT_BY_NAME.keys() == set()
    assert offered >= KNOWN
    assert not KNOWN & NOT_BY_NAME.keys()
    assert ARGUMENTS.keys() == KNOWN


@pytest.mark.parametrize("name", sorted(KNOWN - {"AtariPreprocessing"}))
def test_a_wrapper_is_made_with_arguments_as_yaml_has_them(name):
    items = [{"TimeLimit": {"max_episode_steps": 9}}, {name: ARGUMENTS[name]}]
    env = wrapped(Anything(**MADE.get(name, {})), layers(items))
    assert type(env) is getattr(wrappers, name)
    obs, _ = env.reset(seed=1)
    assert np.shape(obs) == (env.observation_space.shape or np.shape(obs))
    env.action_space.seed(1)
    assert len(env.step(env.action_space.sample())) == 5


def test_a_whole_number_may_be_written_as_yaml_reads_1e4():
    env = wrapped(Anything(), layers([{"TimeLimit": {"max_episode_steps": 1e4}}]))
    assert env.get_wrapper_attr("_max_episode_steps") == 10_000


def test_the_first_is_innermost():
    stack = {"FrameStackObservation": {"stack_size": 2}}
    env = wrapped(Anything(), layers([stack, "FlattenObservation"]))
    assert env.observation_space.shape == (2 * 96,)
    other = wrapped(Anything(), layers(["FlattenObservation", stack]))
    assert other.observation_space.shape == (2, 96)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("TimeLimt", "got 'TimeLimt'; did you mean 'TimeLimit'?"),
        ("Nonsense", "known are AddRenderObservation, "),
        (
            {"TimeLimit": {"max_steps": 5}},
            "no argument 'max_steps'; did you mean 'max_episode_steps'",
        ),
        ("TimeLimit", "TimeLimit needs max_episode_steps: write {TimeLimit: {max_episode_steps"),
        ({"FlattenObservation": {"x": 1}}, "no argument 'x'; it has none"),
        ({"TimeLimit": {"env": 1, "max_episode_steps": 2}}, "no argument 'env'"),
        ({"DtypeObservation": {"dtype": "flot64"}}, "such as float32: got 'flot64'"),
        ({"TimeLimit": 500}, "as {name: {argument: value}}: got {'TimeLimit': 500}"),
        ({"ClipReward": {}, "FlattenObservation": {}}, "each is an item of the list"),
        ("TransformReward", "takes a function: derive a wrapper class"),
        ("RecordVideo", "evaluation.video_interval_env_steps"),
        (7, "must be a name, or in Python callable: got 7"),
    ],
)
def test_what_is_none_is_refused_with_what_was_meant(item, problem):
    with pytest.raises(ValueError, match=r".") as caught:
        as_layer(item)
    assert problem in str(caught.value)


class Doubled(gym.RewardWrapper):
    def __init__(self, env, factor=2):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Doubled, 10.0),
        ({Doubled: {"factor": 3}}, 15.0),
        (lambda env: Doubled(env, 4), 20.0),
        (functools.partial(wrappers.TransformReward, func=lambda r: r - 1), 4.0),
    ],
)
def test_python_may_give_what_makes_a_wrapper(item, expected):
    env = wrapped(Anything(), layers([item]))
    env.reset()
    assert env.step(0)[1] == expected


def test_an_evaluation_sees_the_environments_own_rewards():
    items = ["FlattenObservation", "NormalizeReward", {"ClipReward": ARGUMENTS["ClipReward"]}]
    env = wrapped(Anything(), layers([*items, Doubled], in_evaluation=True))
    assert type(env) is wrappers.FlattenObservation
    env.reset()
    assert env.step(0)[1] == 5.0


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (["FlattenObservation", "GrayscaleObservation"],
         r"wrapper 2, GrayscaleObservation\(\), does not fit around observations Box\(0, 255"),
        ([{"FrameStackObservation": {"stack_size": 0}}],
         r"FrameStackObservation\(stack_size=0\).*greater than zero"),
        ([lambda env: None], "must make an environment: got None"),
    ],
)  # fmt: skip
def test_a_wrapper_that_does_not_fit_is_told_with_what_it_stands_around(items, problem):
    with pytest.raises(WrapperError, match=problem):
        wrapped(Anything(), layers(items))
