# SPDX-License-Identifier: MIT
"""`wrappers` around the environments of a runner: frames, lengths, statistics."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import (
    FrameStackObservation,
    NormalizeObservation,
    RescaleObservation,
    vector,
)

from rllib_per import ApexDQNConfig
from rllib_per.envs.wrappers import WrapperError
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import CountingEnv, runner_config

STACK = {"FrameStackObservation": {"stack_size": 3, "padding_type": "zero"}}
NORMALIZED = ["NormalizeObservation", "NormalizeReward"]


def config(wrappers, env=lambda context: CountingEnv(0, [4, 6]), **env_runners):
    return runner_config(env, **env_runners).environment(wrappers=wrappers)


def make_runner(wrappers, *args, **kwargs):
    return ApexEnvRunner(config=config(wrappers, *args, **kwargs))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_stack_among_them_is_found_and_its_frames_are_stored_once(mode):
    around = [{"TimeLimit": {"max_episode_steps": 5}}, STACK, {"ClipReward": {"max_reward": 0}}]
    runner = make_runner(around, gym_env_vectorize_mode=mode)
    fragment = runner.collect(30, epsilon=0.5)
    runner.stop()
    spec = runner.row_spec
    assert (spec.stack, spec.stack_padding, spec.frame_shape) == (3, "zero", (3,))
    # Episodes of 4 and, by the limit, 5 steps: the third number of a frame is its step.
    np.testing.assert_array_equal(fragment.obs[:13, 0, 2], [*range(5), *range(6), 0, 1])
    assert fragment.truncated[:11, 0].tolist() == [False] * 9 + [True, False]
    assert fragment.rewards.max() == 0


@pytest.mark.parametrize(
    "around",
    [
        lambda env: NormalizeObservation(FrameStackObservation(env, 3)),
        lambda env: RescaleObservation(FrameStackObservation(env, 3), np.float32(0), np.float32(1)),
    ],
)
def test_what_shows_other_frames_than_were_stacked_is_stored_whole(around):
    runner = make_runner([around])
    runner.collect(30, epsilon=0.5)
    assert runner.row_spec.stack is None
    assert runner.row_spec.frame_shape == (3, 3)


def normalized(context):
    return NormalizeObservation(CountingEnv(0, [4, 6]))


def around_many(context):
    inner = SyncVectorEnv([lambda: CountingEnv(0, [4, 6])] * context["num_envs"])
    return vector.NormalizeReward(vector.NormalizeObservation(inner))


def many_async(context):
    return AsyncVectorEnv([lambda: normalized(context)] * context["num_envs"])


@pytest.mark.parametrize(
    ("env", "mode", "remedy"),
    [(normalized, "async", "process of its own .* set gym_env_vectorize_mode='sync'"),
     (around_many, "vector_entry_point", "NormalizeReward around .* normalize each environment"),
     (many_async, "vector_entry_point", "process of its own")],
)  # fmt: skip
def test_statistics_that_nobody_could_freeze_or_save_are_refused(env, mode, remedy):
    with pytest.raises(ValueError, match=f"{remedy}"):
        make_runner([], env, gym_env_vectorize_mode=mode, num_envs=2)


def frozen(context):
    env = normalized(context)
    env.update_running_mean = False
    return env


def frozen_around_many(context):
    inner = SyncVectorEnv([lambda: CountingEnv(0, [4, 6])] * context["num_envs"])
    env = vector.NormalizeObservation(inner)
    env.update_running_mean = False
    return env


@pytest.mark.parametrize(
    ("env", "mode"), [(frozen, "async"), (frozen_around_many, "vector_entry_point")]
)
def test_statistics_that_are_frozen_already_are_taken(env, mode):
    runner = make_runner([], env, gym_env_vectorize_mode=mode, num_envs=2)
    runner.collect(5, epsilon=0.5)
    runner.stop()


def test_discrete_observations_are_learned_as_vectors():
    runner = make_runner(["FlattenObservation"], "FrozenLake-v1")
    fragment = runner.collect(5, epsilon=1.0)
    assert fragment.obs.shape == (6, 1, 16)
    assert (fragment.obs.sum(axis=2) == 1).all()


def test_parts_are_dropped_before_anything_is_put_around_the_rest():
    class WithText(CountingEnv):
        def __init__(self):
            super().__init__(0, [3])
            seen = {"at": self.observation_space, "mission": gym.spaces.Text(9)}
            self.observation_space = gym.spaces.Dict(seen)

        def _observation(self):
            return {"at": np.zeros(3, np.float32), "mission": "go"}

    settings = config(["FlattenObservation"], lambda context: WithText())
    runner = ApexEnvRunner(config=settings.environment(drop_leaves=["mission"]))
    assert runner.collect(5, epsilon=1.0).obs.shape == (6, 1, 3)


def test_statistics_change_with_what_is_collected_and_with_nothing_else():
    runner = make_runner(NORMALIZED, num_envs=2)
    runner.collect(10, epsilon=0.5)
    before = runner.env_statistics()
    # One of each step and reset; Gymnasium begins with 1e-4.
    assert before["observation0.count"] == pytest.approx(22 + 1e-4)
    runner.sample(num_episodes=3)
    np.testing.assert_equal(runner.env_statistics(), before)
    runner.collect(1, epsilon=0.5)
    assert runner.env_statistics()["observation0.count"] > before["observation0.count"]


def test_a_runner_goes_on_with_the_statistics_that_it_saved():
    runner, other = make_runner(NORMALIZED), make_runner(NORMALIZED)
    runner.collect(10, epsilon=0.5)
    other.set_random_state(runner.random_state(), 10)
    np.testing.assert_equal(other.env_statistics(), runner.env_statistics())
    before = runner.env_statistics()
    runner.make_env()  # As after a failure of the environment.
    np.testing.assert_equal(runner.env_statistics(), before)


def test_an_evaluation_runner_plays_for_the_environments_own_rewards():
    settings = config(["NormalizeObservation", {"ClipReward": {"max_reward": 0}}])
    training = ApexEnvRunner(config=settings)
    settings.in_evaluation = True
    evaluating = ApexEnvRunner(config=settings)
    assert training.sample(num_episodes=1)[0].get_return() == 0
    assert evaluating.sample(num_episodes=1)[0].get_return() > 0


def test_a_vector_environment_of_its_own_takes_none():
    pytest.importorskip("ale_py")
    with pytest.raises(WrapperError, match="rllib_per/Atari-v1 brings its own vectorization"):
        make_runner(["FlattenObservation"], "rllib_per/Atari-v1", env_config={"game": "pong"})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"wrappers": "TimeLimit"}, "`wrappers` must be a list: got 'TimeLimit'"),
        ({"wrappers": ["FlattenObservation", "TimeLimt"]},
         "`wrappers`, number 2: must be one of Gymnasium's wrappers: got 'TimeLimt'; did you mean"),
        ({"wrappers": NORMALIZED, "gym_env_vectorize_mode": "async"},
         "number 2: NormalizeReward() would keep statistics of its own in each process"),
        ({"wrappers": ["FlattenObservation"], "callbacks_on_episode_step": print},
         "`wrappers` needs ApexEnvRunner"),
    ],
)  # fmt: skip
def test_what_cannot_be_put_around_is_found_before_anything_starts(settings, problem):
    asked = ApexDQNConfig().environment("CartPole-v1")
    for name, value in settings.items():
        setattr(asked, name, value)
    with pytest.raises(ValueError, match="ApexDQNConfig") as caught:
        asked.validate()
    assert problem in str(caught.value)


def test_a_config_with_wrappers_comes_back_from_what_it_gave():
    asked = ApexDQNConfig().environment("CartPole-v1", wrappers=[STACK])
    asked.validate()
    assert ApexDQNConfig.from_dict(asked.to_dict()).wrappers == [STACK]


def normalizing(context):
    return SyncVectorEnv([lambda: NormalizeObservation(gym.make("CartPole-v1"))] * 3)


def test_environments_that_a_creator_makes_together_share_their_statistics():
    config = runner_config(normalizing, 3, gym_env_vectorize_mode="vector_entry_point")
    trained, evaluating = (ApexEnvRunner(config=config) for _ in range(2))
    trained.collect(50, epsilon=1.0)
    statistics = trained.env_statistics()
    assert statistics["observation0.count"] > 3 * 40
    evaluating.take_env_statistics(statistics)
    evaluating.sample(num_episodes=3, explore=False)
    for env in evaluating.env.unwrapped.envs:
        assert env.obs_rms.count == statistics["observation0.count"]


def test_the_first_evaluation_begins_with_the_statistics_it_was_given():
    config = runner_config("CartPole-v1", 2).environment(wrappers=["NormalizeObservation"])
    runner = ApexEnvRunner(config=config)
    mean, var = np.full(4, 5.0), np.full(4, 4.0)
    given = {"observation0.mean": mean, "observation0.var": var, "observation0.count": 1000.0}
    runner.take_env_statistics(given)
    fragment = runner.collect(1, epsilon=0.0)
    np.testing.assert_allclose(fragment.obs[0], -2.5, atol=0.1)
