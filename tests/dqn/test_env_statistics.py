# SPDX-License-Identifier: MIT
"""The statistics by which environments normalize travel: into checkpoints, evaluation, restarts."""

import numpy as np
import pytest
from ray.rllib.algorithms.dqn.dqn import DQN

from rllib_per.dqn.remote_rollouts import RemoteRollouts
from rllib_per.dqn.runner_states import dealt, set_random_states
from rllib_per.envs.statistics import pooled
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.saveable_runner import ENV_STATISTICS
from tests.support.apex import apex_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]
NUM_CPUS = 10

COUNT = "observation0.count"


def build(**settings):
    config = apex_config(**settings).environment(wrappers=["NormalizeObservation"])
    config.reporting(min_sample_timesteps_per_iteration=200)
    return config.evaluation(evaluation_interval=1000, evaluation_duration=2)


IN_DRIVER = {"type": "prioritized", "capacity": 2000}


@pytest.fixture(params=[0, 2, "asynchronous"], scope="module")
def algorithm(request, one_ray):
    if request.param == "asynchronous":
        config = build()
    else:
        config = build(replay_buffer_config=IN_DRIVER)
        config.env_runners(num_env_runners=request.param)
    algorithm = config.build_algo()
    yield algorithm
    algorithm.stop()


def of_runners(group):
    return group.foreach_env_runner(lambda runner: runner.env_statistics())


def test_all_runners_together_have_counted_what_was_played(algorithm):
    algorithm.train()
    steps = algorithm.progress.env_steps
    assert algorithm.env_statistics()[COUNT] > 0.5 * steps  # Actors' are of their last report.


def test_an_evaluation_plays_with_them_and_leaves_them_as_they_are(algorithm):
    algorithm.train()
    before = algorithm.env_statistics()
    algorithm.evaluate()
    (evaluating,) = [each for each in of_runners(algorithm.eval_env_runner_group) if each]
    np.testing.assert_equal(evaluating, before)


def test_a_checkpoint_brings_them_back(algorithm, tmp_path):
    algorithm.train()
    algorithm.save_to_path(tmp_path)
    state = algorithm.get_state(components=["apex_dqn"])["apex_dqn"]["env_runners"]
    saved = pooled([each["env_statistics"] for each in state.values()])
    algorithm.train()
    assert algorithm.env_statistics()[COUNT] > saved[COUNT]
    algorithm.restore_from_path(tmp_path)
    restored = algorithm.env_statistics()
    assert restored[COUNT] == pytest.approx(float(saved[COUNT]), rel=0.2)
    algorithm.train()
    assert algorithm.env_statistics()[COUNT] > restored[COUNT]


@pytest.mark.parametrize(("saved_with", "restored_with"), [(0, 1), (1, 0), (0, 2), (2, 1)])
def test_in_another_number_of_runners_all_together_have_counted_the_same(
    saved_with, restored_with, tmp_path, one_ray
):
    def make(num_env_runners):
        settings = build(replay_buffer_config=IN_DRIVER)
        return settings.env_runners(num_env_runners=num_env_runners).build_algo()

    first, second = make(saved_with), make(restored_with)
    try:
        first.train()
        first.save_to_path(tmp_path)
        before = pooled([each for each in of_runners(first.env_runner_group) if each])
        second.restore_from_path(tmp_path)
        after = [each for each in of_runners(second.env_runner_group) if each]
        assert len(after) == max(restored_with, 1)
        for key, value in before.items():
            np.testing.assert_allclose(pooled(after)[key], value, rtol=1e-6)
            np.testing.assert_allclose(second.env_statistics()[key], value, rtol=1e-6)
    finally:
        first.stop()
        second.stop()


def test_what_runners_that_are_no_more_have_counted_is_not_pooled_twice():
    states = {k: {ENV_STATISTICS: {"a.mean": np.array(float(k)), "a.var": np.array(1.0),
                                   "a.count": np.array(10.0)}} for k in (1, 2, 3, 4)}  # fmt: skip
    given = dealt(states, [1, 2])
    assert given.keys() == {1, 2}
    together = pooled([state[ENV_STATISTICS] for state in given.values()])
    assert (together["a.mean"], together["a.count"]) == (2.5, 40.0)
    assert dealt(states, [1, 2, 3, 4]) == states


def test_a_state_without_any_of_runners_takes_nothing_from_the_record(algorithm):
    algorithm.train()
    before = algorithm.env_statistics()
    algorithm.rollouts.set_random_states({}, env_steps=1)
    np.testing.assert_equal(algorithm.env_statistics(), before)


def test_a_report_of_before_a_restore_is_outdated(algorithm, monkeypatch):
    if not isinstance(algorithm.rollouts, RemoteRollouts):
        return
    rollouts, group = algorithm.rollouts, algorithm.env_runner_group
    algorithm.train()
    states = rollouts.random_states()
    late = [(1, (rollouts._num_restores, {}, (1, {ENV_STATISTICS: {COUNT: np.array(7.0)}})))]
    rollouts.set_random_states(states, env_steps=1)
    before = algorithm.env_statistics()
    monkeypatch.setattr(group, "fetch_ready_async_reqs", lambda **_: late)
    assert rollouts.take_metrics() == [{}]
    np.testing.assert_equal(algorithm.env_statistics(), before)


def test_a_runner_that_was_restarted_normalizes_as_the_others(algorithm, monkeypatch):
    if algorithm.config.num_env_runners == 0:
        return
    group = algorithm.env_runner_group

    def restart(*_):
        """What RLlib's leaves of it: a runner with environments that were made anew."""
        zero = {"observation0.mean": np.zeros(4), COUNT: np.array(1e-4)}
        group.foreach_env_runner(
            lambda runner: runner.take_env_statistics(zero), remote_worker_ids=[1]
        )
        return [1]

    monkeypatch.setattr(DQN, "restore_env_runners", restart)
    before = algorithm.env_statistics()

    def seeds():
        return group.foreach_env_runner(
            lambda runner: runner._first_seed, remote_worker_ids=[1], local_env_runner=False
        )

    (first_seed,) = seeds()
    assert algorithm.restore_env_runners(group) == [1]
    (again,) = group.foreach_env_runner(
        lambda runner: runner.env_statistics(), remote_worker_ids=[1], local_env_runner=False
    )
    # It counts on beside the other, so it has its share of what both have counted.
    together = before[COUNT] / algorithm.config.num_env_runners
    assert again[COUNT] == pytest.approx(float(together))
    np.testing.assert_allclose(again["observation0.mean"], before["observation0.mean"])
    # And with other random numbers than at its start.
    (seed,) = seeds()
    assert seed != first_seed


def test_a_runner_that_was_not_saved_goes_on_with_what_all_others_had():
    config = build(replay_buffer_config=IN_DRIVER)
    saved, same, new = (ApexEnvRunner(config=config, worker_index=i) for i in (1, 1, 2))
    saved.collect(20, epsilon=0.5)
    states = {1: saved.random_state()}

    class Group:
        def num_remote_env_runners(self):
            return 2

        def foreach_env_runner(self, function, **_):
            return [function(runner) for runner in (same, new)]

    first_seed = new._first_seed
    set_random_states(Group(), states, 20, timeout_s=0.0)
    assert new._first_seed != first_seed
    together = pooled([runner.env_statistics() for runner in (same, new)])
    for key, value in saved.env_statistics().items():
        np.testing.assert_allclose(together[key], value)
        np.testing.assert_array_equal(same.env_statistics()[key], new.env_statistics()[key])
