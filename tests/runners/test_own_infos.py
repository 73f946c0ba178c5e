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


# -- what a vector environment says of a reset ---------------------------------------------------


class LoudReset(gym.vector.VectorEnv):
    """Episodes of LENGTH rewards of 1; of the row on which it resets itself it says too much."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, context):
        self.num_envs = context["num_envs"]
        self.single_observation_space = gym.spaces.Box(-1e3, 1e3, (3,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        batch = gym.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)

    def _obs(self):
        return np.repeat(self._t[:, None], 3, axis=1).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        self._t, self._over = np.zeros(self.num_envs, int), np.zeros(self.num_envs, np.bool_)
        return self._obs(), {}

    def step(self, actions):
        was_over = self._over
        self._t = np.where(was_over, 0, self._t + 1)
        self._over = self._t >= LENGTH
        rewards = np.where(was_over, 7.0, 1.0)
        return self._obs(), rewards, self._over | was_over, was_over.copy(), {}


def test_a_reset_has_neither_reward_nor_end_whatever_a_vector_environment_says():
    config = runner_config(LoudReset, gym_env_vectorize_mode="vector_entry_point")
    config.env_runners(num_envs_per_env_runner=2)
    runner = ApexEnvRunner(config=config, worker_index=0)
    fragment = runner.collect(14, epsilon=1.0)
    assert not fragment.rewards[fragment.reset].any()
    assert not (fragment.terminated | fragment.truncated)[fragment.reset].any()
    assert fragment.num_env_steps == int((~fragment.reset).sum()) == 24
    episodes = runner.sample(num_episodes=4)
    assert [(len(e), e.get_return()) for e in episodes] == [(LENGTH, LENGTH)] * 4
    result = play_episodes(LoudReset({"num_envs": 2}), lambda obs: np.zeros(2, np.int64), 6, 0)
    assert (result.lengths, result.returns) == ([LENGTH] * 6, [float(LENGTH)] * 6)
