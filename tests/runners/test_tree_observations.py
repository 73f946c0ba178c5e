# SPDX-License-Identifier: MIT
"""Observations that are trees, on their way from environments into columns."""

import gymnasium as gym
import numpy as np
import pytest
import torch
import tree
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from ray.rllib.env.env_context import EnvContext

from rllib_per.frame_stack import FrameStack
from rllib_per.observations import WrongDataError
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.runners.collector import Collector
from rllib_per.runners.env_answers import CheckedVectorEnv
from rllib_per.runners.env_streams import EnvStreams
from rllib_per.runners.exploration import EpsilonGreedy
from rllib_per.runners.stack_detection import find_frame_stacks
from rllib_per.runners.vector_env import make_vector_env
from tests.support.tree_env import DTYPES, SPACE, TreeEnv, leaves_at

LENGTHS = [[3, 5, 2], [4, 1]]


class Module(torch.nn.Module):
    """Remembers what it was asked of; its Q-values are those of the image's first pixel."""

    action_space = gym.spaces.Discrete(3)

    def __init__(self):
        super().__init__()
        self.asked = []

    def compute_q_values(self, batch):
        self.asked.append(tree.map_structure(torch.clone, batch["obs"]))
        pixel = batch["obs"]["image"].flatten(1)[:, -1:].float()
        return {"qf_preds": torch.cat([pixel, -pixel, 0 * pixel], dim=1)}


def make(mode="sync", wrap=lambda env: env, **options):
    numbers = iter(range(100))

    def create(context):
        i = next(numbers) % len(LENGTHS) if mode != "async" else 0
        return wrap(TreeEnv(i, LENGTHS[i], **options))

    return make_vector_env(
        create, EnvContext({}, worker_index=0), num_envs=len(LENGTHS), vectorize_mode=mode
    )


def collector(env, module=None):
    streams = EnvStreams(env, find_frame_stacks(env, None, "zero"), lambda event, episode: None)
    policy = EpsilonGreedy(3, np.ones(env.num_envs), np.random.default_rng(0))
    streams.reset(lambda: env.reset(seed=0)[0])
    return Collector(
        streams,
        policy,
        module or Module(),
        device="cpu",
        first_stream=0,
        next_row=0,
        records_q=True,
        add_time=lambda key, seconds: None,
    )


def shown_at(env_index, num_rows):
    """(episode, t) of each frame of a stream, and how many frames of its episode are before it."""
    frames, episode = [(0, 0)], 0
    while len(frames) <= num_rows:
        lengths = LENGTHS[env_index]
        frames += [(episode, t) for t in range(1, lengths[episode % len(lengths)] + 1)]
        episode += 1
        frames.append((episode, 0))
    return frames[: num_rows + 1]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_leaf_is_a_column_of_its_own_dtype(mode):
    env = make(mode)
    fragment = collector(env).collect(40, 0.5)
    env.close()
    assert {path: leaf.dtype for path, leaf in fragment.obs.items()} == DTYPES
    for i in range(2):
        index = 0 if mode == "async" else i  # Processes count for themselves.
        for row, (episode, t) in enumerate(shown_at(index, 40)):
            for path, expected in leaves_at(index, episode, t).items():
                np.testing.assert_array_equal(fragment.obs[path][row, i], expected, path)


def test_the_module_gets_the_tree_as_the_space_has_it():
    playing = collector(make())
    playing.collect(3, 0.0)
    asked = playing.module.asked[0]
    assert asked.keys() == SPACE.keys()
    assert asked["pos"]["cell.id"].tolist() == [5, 5]
    assert isinstance(asked["pair"], tuple)
    assert asked["pair"][0].dtype == torch.int64


def test_a_discrete_observation_is_one_column_of_integers():
    env = make_vector_env("FrozenLake-v1", EnvContext({}, 0), num_envs=2, vectorize_mode="sync")
    streams = EnvStreams(env, {}, lambda event, episode: None)
    streams.reset(lambda: env.reset(seed=0)[0])
    streams.step(np.array([1, 1]))
    assert (streams.obs.shape, streams.obs.dtype) == ((2,), np.int64)
    assert streams.row_spec.frame_shape == ()


def test_stacks_of_every_leaf_are_stored_once_and_drawn_as_they_were_shown():
    env = make(wrap=lambda env: FrameStackObservation(env, 3))
    playing = collector(env)
    spec = playing.streams.row_spec
    assert {frame.stack for frame in spec.leaves.values()} == {3}
    replay = PrioritizedReplayBuffer(60, spec, n_step=2, gamma=0.5, alpha=0.0, seed=0)
    for _ in range(9):  # The buffer wraps.
        fragment = playing.collect(12, 0.5)
        assert fragment.obs["image"].shape == (13, 2, 3, 4)
        replay.add(fragment)
    batch = replay.sample(200, 0.4)
    for observations in (batch.obs, batch.next_obs):
        for row in range(200):
            index, episode = divmod(int(observations["pos/x"][row, -1, 0]), 1000)
            last = int(observations["pair/0"][row, -1, 1])
            for i, t in enumerate(range(last - 2, last + 1)):
                for path, leaf in observations.items():
                    expected = leaves_at(index, episode, max(t, 0))[path]
                    np.testing.assert_array_equal(leaf[row, i], expected, path)


def test_a_leaf_that_is_a_stack_no_more_is_stored_as_it_is():
    class Newest(gym.ObservationWrapper):
        def __init__(self, env):
            super().__init__(FrameStackObservation(env, 3))
            newest = spaces.Box(-1e4, 1e4, (2,), np.float64)
            self.observation_space = spaces.Dict(
                {"x": newest, "image": self.env.observation_space["image"]}
            )

        def observation(self, observation):
            return {"x": observation["pos"]["x"][-1], "image": observation["image"]}

    spec = collector(make(wrap=Newest)).streams.row_spec
    assert (spec.leaves["x"].stack, spec.leaves["image"].stack) == (None, 3)
    assert spec.leaves["x"].shape == (2,)


def test_a_stack_that_config_names_is_one_of_all_leaves():
    env = make(wrap=lambda env: FrameStackObservation(env, 3))
    assert find_frame_stacks(env, 3, "repeat").keys() == DTYPES.keys()
    assert find_frame_stacks(env, 1, "repeat") == {}
    with pytest.raises(ValueError, match=r"the leaf 'image' has the shape \(3, 4\)"):
        find_frame_stacks(make(), 2, "zero")
    env.frame_stack = {"image": FrameStack(3, "zero")}
    assert find_frame_stacks(env, None, "zero") == env.frame_stack


def spoilt(path, value, at=20):
    def spoil(t, observation):
        if t != at:
            return observation
        if path == "":
            return value
        first, *more = path
        return observation | {first: observation[first] | {more[0]: value} if more else value}

    return spoil


WRONG = {
    "a number": ("", 1.0, "float 1.0, which has no leaf 'image'"),
    "no image": ("", {"pos": {}}, "has no leaf 'image'"),
    "a float image": (["image"], np.ones((3, 4)), "as leaf 'image', of shape .* dtype float64"),
    "another shape": (["image"], np.ones((3, 3), np.uint8), r"shape \(3, 3\)"),
    "no such category": (["pos", "cell.id"], 305, r"leaf 'pos/cell_id'.* 305, which is not in Dis"),
    "an earlier one": (["pos", "cell.id"], 4, "which is not in Discrete"),
    "half a category": (["pos", "cell.id"], 5.5, "dtype float64|float 5.5"),
    "too many in a row": (["pair"], (np.array([7, 0]), np.zeros(9)), "not in MultiDiscrete"),
    "a short tuple": (["pair"], (np.array([6, 0]),), "has no leaf 'pair/1'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_leaf_that_is_not_the_spaces_is_named_at_any_step(name):
    path, value, message = WRONG[name]
    playing = collector(make(spoil=spoilt(path, value)))
    with pytest.raises(WrongDataError, match=rf"step\(\) of environment \d, .*{message}"):
        playing.collect(40, 1.0)


def test_a_leaf_that_is_not_finite_is_named():
    wrong = np.array([0.0, np.nan])
    for play in (lambda c: c.collect(40, 1.0), lambda c: [c.play_row(1.0) for _ in range(40)]):
        with pytest.raises(WrongDataError, match=r"finite numbers in pos/x: .* observed nan"):
            play(collector(make(spoil=spoilt(["pos", "x"], wrong))))


class OwnVector(SyncVectorEnv):
    """A vector environment of a user's own, one of whose steps is `spoilt`."""

    spoil = staticmethod(lambda observations: observations)

    def step(self, actions):
        observations, *more = super().step(actions)
        return self.spoil(observations), *more


def test_vector_environments_of_ones_own_give_trees_too():
    env = CheckedVectorEnv(OwnVector([lambda i=i: TreeEnv(i, LENGTHS[i]) for i in range(2)]))
    ours, theirs = collector(make()), collector(env)
    one, other = ours.collect(30, 0.5), theirs.collect(30, 0.5)
    for path in DTYPES:
        np.testing.assert_array_equal(one.obs[path], other.obs[path])
    env.env.spoil = lambda observations: observations | {"image": np.zeros((2, 3, 3), np.uint8)}
    with pytest.raises(WrongDataError, match=r"of the vector environment .* as leaf 'image'"):
        theirs.collect(1, 0.5)


def test_the_sync_environment_gives_batches_as_gymnasiums_does():
    ours = make()
    theirs = SyncVectorEnv([lambda i=i: TreeEnv(i, LENGTHS[i]) for i in range(2)])
    one, other = ours.reset()[0], theirs.reset()[0]
    for _ in range(20):
        assert gym.vector.utils.batch_space(SPACE, 2).contains(one)
        np.testing.assert_array_equal(one["pos"]["x"], other["pos"]["x"])
        np.testing.assert_array_equal(one["pair"][1], other["pair"][1])
        one, other = ours.step([0, 1])[0], theirs.step([0, 1])[0]
