# SPDX-License-Identifier: MIT
"""What an environment writes into infos and attributes is its own affair: nothing is read there."""

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_per.experiments.evaluation import play_episodes
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import CountingEnv, runner_config

LENGTH = 5


class Talkative(CountingEnv):
    """Has names of its own for everything that once was, or could be, a signal of this package."""

    frame_stack = 4
    episodes_over = False

    def __init__(self, context=None):
        super().__init__(0, [LENGTH])

    def step(self, action):
        *row, _ = super().step(action)
        infos = dict.fromkeys(("episode_over", "episodes_over", "autoreset", "final_obs"), False)
        return *row, infos | {"terminated": False, "truncated": False, "reset": True}


class TalkativeVector(gym.vector.SyncVectorEnv):
    frame_stack = 4
    episodes_over = False

    def __init__(self, context):
        super().__init__([Talkative] * context["num_envs"])


MODES = {"sync": Talkative, "async": Talkative, "vector_entry_point": TalkativeVector}


@pytest.fixture(params=MODES)
def runner(request):
    config = runner_config(MODES[request.param], 2, gym_env_vectorize_mode=request.param)
    runner = ApexEnvRunner(config=config)
    yield runner
    runner.stop()


def test_episodes_end_where_the_flags_say_in_every_mode(runner):
    fragment = runner.collect(40, epsilon=1.0)
    assert runner.row_spec.stack is None
    ends = fragment.terminated | fragment.truncated
    np.testing.assert_array_equal(np.flatnonzero(ends[:, 0]), range(LENGTH - 1, 40, LENGTH + 1))
    np.testing.assert_array_equal(fragment.reset[1:], ends[:-1])
    buffer = PrioritizedReplayBuffer(500, runner.row_spec, seed=0)
    buffer.add(fragment)
    drawn = buffer.sample(1000, 0.4)
    np.testing.assert_array_equal(drawn.next_obs[:, 2], drawn.obs[:, 2] + 1)
    np.testing.assert_array_equal(drawn.next_obs[:, 1], drawn.obs[:, 1])


def test_evaluations_count_those_episodes_in_every_mode(runner):
    assert [len(episode) for episode in runner.sample(num_episodes=6)] == [LENGTH] * 6
    greedy = play_episodes(runner.env, lambda obs: np.zeros(2, np.int64), 6, 0)
    assert greedy.lengths == [LENGTH] * 6


class BothFlags(CountingEnv):
    """A time limit that strikes on the step on which the environment terminates."""

    def __init__(self, context=None):
        super().__init__(0, [LENGTH])

    def step(self, action):
        obs, reward, *_, infos = super().step(action)
        over = self.t == LENGTH
        return obs, reward, over, over, infos


@pytest.mark.parametrize("runner_class", [ApexEnvRunner, SingleAgentEnvRunner])
def test_an_episode_with_both_flags_is_terminated_and_truncated_as_with_rllib(runner_class):
    seen = []

    def see(*, episode, **kwargs):
        seen.append((episode.is_terminated, episode.is_truncated, episode.is_done))

    config = runner_config(BothFlags).callbacks(on_episode_end=see)
    runner = runner_class(config=config)
    (episode,) = runner.sample(num_episodes=1, random_actions=True)
    assert seen == [(True, True, True)]
    assert (episode.is_terminated, episode.is_truncated) == (True, True)


def test_where_both_flags_are_set_nothing_is_bootstrapped():
    runner = ApexEnvRunner(config=runner_config(BothFlags))
    buffer = PrioritizedReplayBuffer(500, runner.row_spec, seed=0)
    buffer.add(runner.collect(40, epsilon=1.0))
    drawn = buffer.sample(1000, 0.4)
    last = drawn.next_obs[:, 2] == LENGTH
    assert last.any()
    np.testing.assert_array_equal(drawn.bootstrap_discounts == 0.0, last)
