# SPDX-License-Identifier: MIT
"""RLlib's evaluation on our runner ends, however long episodes are; seeds reach every env."""

from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback

from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.vector_env import longest_episode, reset_with_seeds
from tests.support.counting_env import counting_runner, runner_config

ENDLESS = 10_000


class Ends(RLlibCallback):
    seen: list = []  # noqa: RUF012

    def on_episode_start(self, *, episode, **kwargs):
        self.seen.append(("start", episode.id_))

    def on_episode_end(self, *, episode, **kwargs):
        self.seen.append(("end", episode.id_))


def bounded(config):
    return config.evaluation(max_env_steps_per_episode=20).callbacks(Ends)


def test_episodes_without_an_end_are_cut_truncated_and_counted():
    Ends.seen.clear()
    runner = counting_runner([[ENDLESS], [3]], configure=bounded)
    episodes = runner.sample(num_episodes=5)
    lengths = Counter((e.env_index, len(e), e.is_cut, e.is_done) for e in episodes)
    assert lengths == {(0, 20, True, True): 3, (1, 3, False, True): 2}
    assert all(episode.is_truncated for episode in episodes if episode.is_cut)
    # Episode e's rewards are e/8 and more, by 1/6 on average: they are of three resets.
    assert [int(8 * (e.get_return() / 20 - 1 / 8)) for e in episodes if e.is_cut] == [0, 1, 2]
    metrics = runner.get_metrics()
    assert (metrics["num_episodes_cut"].peek(), metrics["num_episodes"].peek()) == (3, 5)
    ends = [id_ for event, id_ in Ends.seen if event == "end"]
    assert len(ends) == len(set(ends))
    assert {episode.id_ for episode in episodes} <= set(ends)
    assert set(ends) <= {id_ for event, id_ in Ends.seen if event == "start"}


def test_what_is_collected_for_replay_is_never_cut():
    runner = counting_runner([[ENDLESS]], configure=bounded)
    runner.sample(num_episodes=1)
    fragment = runner.collect(50, epsilon=1.0)
    assert not fragment.truncated[1:].any()
    assert not runner.sample(num_timesteps=50)[0].is_done


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_the_time_limit_of_the_registered_environment_is_the_bound(mode):
    for env_config, limit in (({}, 500), ({"max_episode_steps": 900}, 900)):
        config = runner_config("CartPole-v1", 2, env_config=env_config, gym_env_vectorize_mode=mode)
        runner = ApexEnvRunner(config=config)
        assert longest_episode(runner.env) == limit
        assert longest_episode(runner.env, 7) == 7
        runner.stop()


def test_a_game_of_atari_is_bounded_by_the_frames_of_the_fields_evaluations():
    def bound(**env_config):
        config = runner_config(
            "rllib_per/Atari-v1",
            env_config={"game": "pong", "frame_size": (20, 20), **env_config},
            gym_env_vectorize_mode="vector_entry_point",
        )
        config.rl_module(model_config={"network": "mlp"})
        return longest_episode(ApexEnvRunner(config=config).env)

    assert bound() == 27_000
    assert bound(frame_skip=1) == 108_000
    assert bound(max_frames_per_episode=200_000) == 50_000


class Seeded(gym.Env):
    """Observes its seed, and takes one only as Gymnasium's generator does."""

    observation_space = gym.spaces.Box(0, 2**40, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, context=None):
        self.seed = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        return np.array([self.seed], np.float64), {}

    def step(self, action):
        return np.array([self.seed], np.float64), 0.0, False, False, {}


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_seeds_that_numpy_made_reach_every_kind_of_environment(mode):
    env = Seeded
    if mode == "vector_entry_point":

        def env(context):
            return gym.vector.SyncVectorEnv([Seeded] * context["num_envs"])

    runner = ApexEnvRunner(config=runner_config(env, 2, gym_env_vectorize_mode=mode))
    seeds = np.array([11, 2**31 + 5])
    assert reset_with_seeds(runner.env, seeds)[:, 0].tolist() == seeds.tolist()
    runner.stop()


@pytest.mark.parametrize("in_evaluation", [False, True])
def test_no_two_environments_have_the_same_seed(in_evaluation):
    """RLlib's is the run's + the runner's number, and + 1 for each of its environments.

    Nor have those of two runs whose seeds are neighbours.
    """
    seeds = []
    for seed in (40, 41, 42):
        config = runner_config(Seeded, 3).env_runners(num_env_runners=3).debugging(seed=seed)
        config.in_evaluation = in_evaluation
        for worker in (1, 2, 3):
            runner = ApexEnvRunner(config=config, worker_index=worker)
            runner.collect(1, epsilon=0.0)
            seeds += [env.unwrapped.seed for env in runner.env.unwrapped.envs]
    assert len(set(seeds)) == 27
    assert max(seeds) < 2**31
    assert np.diff(np.reshape(seeds, (3, 9))).tolist() == [[1] * 8] * 3


def test_no_two_runners_of_runs_with_neighbouring_seeds_explore_alike():
    """RLlib's second runner of a run has the seed of the first one of the next run."""
    actions = set()
    for seed in (40, 41):
        config = runner_config(Seeded, 3).env_runners(num_env_runners=3).debugging(seed=seed)
        for worker in (1, 2, 3):
            fragment = ApexEnvRunner(config=config, worker_index=worker).collect(40, epsilon=1.0)
            actions.add(fragment.actions.tobytes())
    assert len(actions) == 6


def test_one_seed_that_numpy_made_is_counted_up_from():
    runner = ApexEnvRunner(config=runner_config(Seeded, 3))
    assert runner.env.reset(seed=np.int64(40))[0][:, 0].tolist() == [40, 41, 42]


def test_a_runner_seeds_gymnasiums_own_vector_environment():
    config = runner_config("CartPole-v1", 3, gym_env_vectorize_mode="vector_entry_point")
    first, second = (ApexEnvRunner(config=config).collect(9, epsilon=0.5) for _ in range(2))
    np.testing.assert_array_equal(first.obs, second.obs)
