# SPDX-License-Identifier: MIT
import gymnasium as gym
import msgpack
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_per.observations import WrongDataError
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.generator_state import set_state_of, state_of
from tests.support.counting_env import NUM_ACTIONS, CountingEnv, counting_runner, runner_config

LENGTHS = [[3, 1, 4], [2], [5, 5, 1]]
TD_ERROR = {"replay_buffer_config": {"initial_priority": "td_error"}}


def rows_by_hand(index, lengths, actions):
    """What CountingEnv answers to `actions`, in next-step autoreset, one tuple per row."""
    env, over = CountingEnv(index, lengths), False
    obs, _ = env.reset()
    for action in actions:
        if over:
            next_obs, _ = env.reset()
            row = (obs, 0.0, False, False, True)
            over = False
        else:
            next_obs, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            row = (obs, reward, terminated, truncated, False)
        yield (*row, next_obs)
        obs = next_obs


def joined(fragments, column):
    return np.concatenate([getattr(fragment, column) for fragment in fragments])


def greedy_actions(runner, obs):
    with torch.inference_mode():
        return runner.module.compute_q_values({"obs": torch.from_numpy(obs)})["qf_preds"].numpy()


def test_columns_are_what_the_environments_did_whatever_the_fragments_lengths():
    runner = counting_runner(LENGTHS)
    fragments = [runner.collect(n, epsilon=1.0) for n in (1, 7, 2, 30)]
    for i, lengths in enumerate(LENGTHS):
        actions = joined(fragments, "actions")[:, i]
        assert set(actions) == set(range(NUM_ACTIONS))
        for t, (_, reward, terminated, truncated, reset, _) in enumerate(
            rows_by_hand(i, lengths, actions)
        ):
            assert joined(fragments, "rewards")[t, i] == np.float32(reward)
            assert joined(fragments, "terminated")[t, i] == terminated
            assert joined(fragments, "truncated")[t, i] == truncated
            assert joined(fragments, "reset")[t, i] == reset


def test_observations_stand_before_and_after_their_row_and_streams_go_on():
    runner = counting_runner(LENGTHS)
    first, second = runner.collect(9, epsilon=0.5), runner.collect(11, epsilon=0.5)
    np.testing.assert_array_equal(first.obs[-1], second.obs[0])
    np.testing.assert_array_equal(second.first_step, first.first_step + 9)
    obs = np.concatenate([first.obs[:-1], second.obs])
    for i, lengths in enumerate(LENGTHS):
        actions = joined([first, second], "actions")[:, i]
        for t, (before, *_, after) in enumerate(rows_by_hand(i, lengths, actions)):
            np.testing.assert_array_equal(obs[t, i], before)
            np.testing.assert_array_equal(obs[t + 1, i], after)


def test_a_fragment_is_not_changed_by_the_next():
    runner = counting_runner(LENGTHS, training=TD_ERROR)
    fragment = runner.collect(5, epsilon=0.5)
    copies = {name: np.copy(value) for name, value in vars(fragment).items() if name != "extras"}
    runner.collect(5, epsilon=0.5)
    for name, copy in copies.items():
        np.testing.assert_array_equal(getattr(fragment, name), copy)


def test_env_steps_leave_out_reset_rows():
    runner = counting_runner([[2]])
    # Two steps and a reset, five times.
    assert runner.collect(15, epsilon=0.0).num_env_steps == 10
    assert runner.get_metrics()["num_env_steps_sampled"].peek() == 10


def test_without_exploration_the_action_of_highest_q_is_taken():
    runner = counting_runner(LENGTHS)
    fragment = runner.collect(20, epsilon=None)
    for obs, actions in zip(fragment.obs[:-1], fragment.actions, strict=True):
        np.testing.assert_array_equal(actions, greedy_actions(runner, obs).argmax(axis=1))
    assert fragment.q_taken is None
    assert fragment.q_max is None


def test_q_columns_are_the_networks_with_one_forward_pass_per_observation():
    runner = counting_runner(LENGTHS, training=TD_ERROR)
    compute, calls = runner.module.compute_q_values, []
    runner.module.compute_q_values = lambda batch: calls.append(1) or compute(batch)
    fragments = [runner.collect(6, epsilon=0.5), runner.collect(6, epsilon=0.5)]
    assert len(calls) == 6 + 6 + 1
    for fragment in fragments:
        q_values = np.stack([greedy_actions(runner, obs) for obs in fragment.obs])
        taken = np.take_along_axis(q_values[:-1], fragment.actions[..., None], axis=2)[..., 0]
        np.testing.assert_allclose(fragment.q_taken, taken, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fragment.q_max, q_values.max(axis=2), rtol=1e-5, atol=1e-6)


def test_random_play_needs_no_network():
    runner = counting_runner(LENGTHS)
    runner.module.compute_q_values = None
    assert runner.collect(10, epsilon=0.0, random_actions=True).num_rows == 30


def test_double_observations_are_kept_in_single_precision():
    runner = counting_runner(LENGTHS, dtype=np.float64)
    assert runner.row_spec.frame_dtype == np.float32
    assert runner.collect(3, epsilon=0.0).obs.dtype == np.float32


def test_a_reward_that_is_no_number_names_environment_and_step():
    class Broken(CountingEnv):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, np.nan if self.t == 3 else reward, *rest

    runner = ApexEnvRunner(config=runner_config(lambda context: Broken(0, [100])))
    runner.collect(2, epsilon=0.0)
    with pytest.raises(WrongDataError, match=r"environment 0 .* returned nan at its step"):
        runner.collect(2, epsilon=0.0)


def failing_env(fails_at):
    steps = iter(range(10_000))

    class Failing(CountingEnv):
        def step(self, action):
            if next(steps) == fails_at:
                raise OSError("the simulator crashed")
            return super().step(action)

    return lambda context: Failing(0, [100])


def failing_cartpole(fails_at):
    steps = iter(range(10_000))

    class Failing(gym.Wrapper):
        def step(self, action):
            if next(steps) == fails_at:
                raise OSError("the simulator crashed")
            return super().step(action)

    return lambda context: Failing(gym.make("CartPole-v1"))


def test_an_environments_error_reaches_the_user():
    runner = ApexEnvRunner(config=runner_config(failing_env(fails_at=4)))
    with pytest.raises(OSError, match="the simulator crashed"):
        runner.collect(10, epsilon=0.0)


def test_what_follows_an_error_is_not_taken_for_its_continuation():
    runner = ApexEnvRunner(config=runner_config(failing_env(fails_at=14)))
    before = runner.collect(10, epsilon=0.0)
    with pytest.raises(OSError, match="crashed"):
        runner.collect(10, epsilon=0.0)
    after = runner.collect(10, epsilon=0.0)
    assert after.first_step[0] > before.first_step[0] + 10
    assert after.reset[:, 0].tolist() == [True] + 9 * [False]
    np.testing.assert_array_equal(after.obs[1:, 0, 2], np.arange(10))
    # Nobody's episode ended: the streams were reset.
    assert after.num_episodes == 0


def test_environments_that_are_made_anew_are_seeded_but_play_other_episodes():
    def first_observations():
        config = runner_config(failing_cartpole(fails_at=14))
        config.fault_tolerance(restart_failed_sub_environments=True)
        runner = ApexEnvRunner(config=config)
        before, after = runner.collect(10, epsilon=0.0), runner.collect(10, epsilon=0.0)
        return before.obs[0, 0], after.obs[1, 0]

    before, after = first_observations()
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(first_observations(), (before, after))


def test_a_runner_that_is_started_again_repeats_neither_its_episodes_nor_its_exploration():
    def first_fragment(*, env_steps):
        runner = ApexEnvRunner(config=runner_config("CartPole-v1", 2))
        if env_steps:
            runner.begin_later(env_steps)
        return runner.collect(20, epsilon=1.0)

    start, again, *later = (first_fragment(env_steps=n) for n in (0, 0, 100, 100, 200))
    np.testing.assert_array_equal(start.obs, again.obs)
    np.testing.assert_array_equal(later[0].obs, later[1].obs)
    for one, other in ((start, later[0]), (later[0], later[2])):
        assert not np.intersect1d(one.obs[0], other.obs[0]).size
        assert not np.array_equal(one.actions, other.actions)


def test_exploration_draws_no_numbers_of_the_first_environment():
    runner = ApexEnvRunner(config=runner_config("CartPole-v1", 2).debugging(seed=5))
    gymnasiums, _ = gym.utils.seeding.np_random(5)
    assert not np.intersect1d(runner._rng.random(100), gymnasiums.random(1000)).size


def test_a_failed_environment_is_made_anew_if_asked_for_and_the_gap_shows():
    config = runner_config(failing_env(fails_at=14))
    config.fault_tolerance(restart_failed_sub_environments=True)
    runner = ApexEnvRunner(config=config)
    before, after = runner.collect(10, epsilon=0.0), runner.collect(10, epsilon=0.0)
    assert after.first_step[0] > before.first_step[0] + 10
    assert after.reset[:, 0].tolist() == [True] + 9 * [False]
    np.testing.assert_array_equal(after.obs[1:, 0, 2], np.arange(10))


def test_streams_of_all_runners_are_numbered_apart():
    ids = []
    for worker in (1, 2, 3):
        config = runner_config("CartPole-v1", 2).env_runners(num_env_runners=3)
        runner = ApexEnvRunner(config=config, worker_index=worker)
        ids += runner.collect(1, epsilon=0.0).stream_ids.tolist()
    assert ids == list(range(6))


def test_a_driver_with_remote_runners_needs_no_environment():
    config = runner_config("CartPole-v1").env_runners(num_env_runners=2)
    spaces = ApexEnvRunner(config=config, worker_index=1).get_spaces()
    driver = ApexEnvRunner(config=config, worker_index=0, spaces=spaces)
    assert driver.module.action_space == spaces[DEFAULT_MODULE_ID][1]
    with pytest.raises(ValueError, match="has no environment"):
        driver.collect(1, epsilon=0.0)


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_every_way_to_vectorize_gives_next_step_autoreset(mode):
    runner = ApexEnvRunner(config=runner_config("CartPole-v1", 2, gym_env_vectorize_mode=mode))
    try:
        fragment = runner.collect(100, epsilon=1.0)
    finally:
        runner.stop()
    over = fragment.terminated | fragment.truncated
    assert over.any()
    np.testing.assert_array_equal(fragment.reset[1:], over[:-1])
    np.testing.assert_array_equal(fragment.rewards, ~fragment.reset)


def test_sync_and_async_environments_give_the_same_fragment():
    fragments = []
    for mode in ("sync", "async"):
        runner = ApexEnvRunner(config=runner_config("CartPole-v1", 2, gym_env_vectorize_mode=mode))
        fragments.append(runner.collect(60, epsilon=1.0))
        runner.stop()
    for name in ("obs", "actions", "rewards", "terminated", "truncated", "reset"):
        np.testing.assert_array_equal(*(getattr(fragment, name) for fragment in fragments))


def test_a_generators_state_has_no_number_that_msgpack_cannot_hold():
    generator, twin = np.random.default_rng(2), np.random.default_rng(3)
    generator.integers(7, size=3, dtype=np.int32)
    state = msgpack.unpackb(msgpack.packb(state_of(generator)))
    set_state_of(twin, state)
    assert twin.bit_generator.state == generator.bit_generator.state
    set_state_of(twin, generator.bit_generator.state)  # As older checkpoints have it.
    assert twin.random() == generator.random()
