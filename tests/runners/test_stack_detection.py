# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FlattenObservation, FrameStackObservation

from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.env_streams import NUM_CHECKED_STEPS
from tests.support.counting_env import CountingEnv, runner_config


def stacked(wrap):
    return lambda context: wrap(CountingEnv(0, [4, 6]))


def make_runner(wrap, **env_runners):
    return ApexEnvRunner(config=runner_config(stacked(wrap), **env_runners))


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("padding", "found"), [("reset", "repeat"), ("zero", "zero")])
def test_gymnasiums_wrapper_is_found_and_single_frames_are_emitted(mode, padding, found):
    runner = make_runner(
        lambda env: FrameStackObservation(env, 3, padding_type=padding),
        gym_env_vectorize_mode=mode,
    )
    fragment = runner.collect(30, epsilon=0.5)
    runner.stop()
    spec = runner.row_spec
    assert (spec.stack, spec.stack_padding, spec.frame_shape) == (3, found, (3,))
    assert fragment.obs.shape == (31, 1, 3)
    # Episodes of 4 and 6 steps: the third number of a frame is its step.
    np.testing.assert_array_equal(fragment.obs[:13, 0, 2], [0, 1, 2, 3, 4, *range(7), 0])


def test_the_policy_sees_whole_stacks():
    runner = make_runner(lambda env: FrameStackObservation(env, 3, padding_type="zero"))
    seen = []
    compute = runner.module.compute_q_values
    runner.module.compute_q_values = lambda batch: (
        seen.append(batch["obs"][0, :, 2].tolist()) or compute(batch)
    )
    runner.collect(4, epsilon=0.0)
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_every_step_of_every_episode_is_replayed_also_the_first_of_a_stream():
    runner = make_runner(lambda env: FrameStackObservation(env, 4))
    replay = PrioritizedReplayBuffer(1000, runner.row_spec, alpha=0.0)
    num_steps = 0
    for _ in range(3):
        fragment = runner.collect(10, epsilon=0.0)
        replay.add(fragment)
        num_steps += fragment.num_env_steps
        runner.sample(num_episodes=1)  # After it the streams begin anew.
    assert len(replay) == num_steps
    assert replay.metrics()["num_gaps_lifetime"] > 0


def test_a_plain_observation_is_no_stack():
    assert make_runner(lambda env: env).row_spec.stack is None


def test_a_stack_that_was_flattened_is_none_any_more():
    runner = make_runner(lambda env: FlattenObservation(FrameStackObservation(env, 2)))
    assert runner.row_spec.stack is None
    assert runner.row_spec.frame_shape == (6,)


class OwnStack(gym.ObservationWrapper):
    """Stacks the newest frame first, which replay could not rebuild."""

    def __init__(self, env):
        super().__init__(FrameStackObservation(env, 2))

    def observation(self, observation):
        return observation[::-1].copy()


def test_config_names_a_stack_that_cannot_be_found():
    class Hidden(gym.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            self.observation_space = gym.spaces.Box(-1, 10_000, (2, 3), np.float32)
            self._last = np.zeros(3, np.float32)

        def reset(self, **kwargs):
            self._last = np.zeros(3, np.float32)
            return super().reset(**kwargs)

        def observation(self, observation):
            stack = np.stack([self._last, observation])
            self._last = observation
            return stack

    assert make_runner(Hidden).row_spec.stack is None
    runner = make_runner(Hidden, frame_stack=2)
    runner.collect(30, epsilon=0.0)
    assert runner.row_spec.stack == 2
    with pytest.raises(ValueError, match="`frame_stack_padding` is 'repeat'"):
        make_runner(Hidden, frame_stack=2, frame_stack_padding="repeat").collect(9, epsilon=0.0)


def test_what_is_no_stack_of_frames_is_found_out():
    with pytest.raises(ValueError, match="older frames differ"):
        make_runner(OwnStack, frame_stack=2, frame_stack_padding="repeat").collect(9, epsilon=0.0)
    with pytest.raises(ValueError, match="must hold 5 frames"):
        make_runner(lambda env: FrameStackObservation(env, 4), frame_stack=5)


def test_a_stack_of_one_overrules_what_the_environment_declares():
    runner = make_runner(lambda env: FrameStackObservation(env, 4), frame_stack=1)
    assert runner.row_spec.stack is None
    assert runner.collect(9, epsilon=0.0).obs.shape[2:] == runner.row_spec.frame_shape
    assert runner.row_spec.frame_shape[0] == 4


def test_wrong_stacks_are_refused_however_often_they_come():
    class NewestFirst(gym.ObservationWrapper):
        def observation(self, observation):
            return observation[::-1]

    runner = make_runner(
        lambda env: NewestFirst(FrameStackObservation(env, 3)),
        frame_stack=3,
        frame_stack_padding="repeat",
    )
    for _ in range(NUM_CHECKED_STEPS + 4):
        with pytest.raises(ValueError, match="frames differ"):
            runner.collect(9, epsilon=0.0)


def test_a_padding_that_replay_cannot_rebuild_is_refused():
    with pytest.raises(ValueError, match="must pad with 'reset' or 'zero'"):
        make_runner(lambda env: FrameStackObservation(env, 2, padding_type=np.ones(3, np.float32)))


def test_a_leaf_that_is_not_padded_with_zeros_is_stored_whole():
    class Parts(CountingEnv):
        def __init__(self):
            super().__init__(0, [4, 6])
            self.observation_space = gym.spaces.Dict(
                counts=self.observation_space,
                category=gym.spaces.Discrete(3, start=2),
                above=gym.spaces.Box(1, 9, (2,), np.int64),
            )

        def _observation(self):
            counts = np.array([0, self.episode, self.t], np.float32)
            above = np.array([1 + self.t, 9 - self.t])
            return {"counts": counts, "category": 2 + self.t % 3, "above": above}

    def stacks(padding):
        config = runner_config(lambda _: FrameStackObservation(Parts(), 3, padding_type=padding))
        runner = ApexEnvRunner(config=config)
        runner.collect(30, epsilon=0.5)
        return {path: frame.stack for path, frame in runner.row_spec.leaves.items()}

    # Gymnasium pads with the number of the space that is nearest to zero.
    assert stacks("zero") == {"counts": 3, "category": None, "above": None}
    assert stacks("reset") == {"counts": 3, "category": 3, "above": 3}
