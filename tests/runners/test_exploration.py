# SPDX-License-Identifier: MIT
import numpy as np
import pytest

from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.runners.exploration import (
    EpsilonGreedy,
    choose,
    ladder_exponents,
    random_actions,
)
from tests.support.counting_env import runner_config
from tests.support.statistics import assert_frequencies

NUM_ROWS = 40_000


def test_the_ladder_is_that_of_the_paper():
    np.testing.assert_allclose(
        0.4 ** ladder_exponents(0, 3, 3), [0.4, 0.4**4.5, 0.4**8], rtol=1e-12
    )
    parts = [ladder_exponents(first, 2, 6) for first in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), ladder_exponents(0, 6, 6))
    assert ladder_exponents(0, 1, 1) == [1.0]


def explored(epsilon, exponents):
    policy = EpsilonGreedy(4, np.asarray(exponents), np.random.default_rng(11))
    return policy.draw(NUM_ROWS, epsilon)


def test_each_environment_explores_at_its_own_rate():
    exponents = ladder_exponents(0, 4, 4)
    explores, _ = explored(0.7, exponents)
    for column, rate in zip(explores.T, 0.7**exponents, strict=True):
        counts = np.bincount(column, minlength=2)
        assert_frequencies(counts, [1 - rate, rate])
        with pytest.raises(AssertionError):
            assert_frequencies(counts, [1 - 0.75 * rate, 0.75 * rate])


def test_random_actions_are_uniform():
    _, actions = explored(0.5, [1.0])
    counts = np.bincount(actions[:, 0], minlength=4)
    assert_frequencies(counts, np.full(4, 0.25))
    with pytest.raises(AssertionError):
        assert_frequencies(counts, [0.22, 0.26, 0.26, 0.26])


@pytest.mark.parametrize(("epsilon", "expected"), [(0.0, False), (1.0, True)])
def test_nothing_and_everything_is_exact_for_every_environment(epsilon, expected):
    explores, _ = explored(epsilon, ladder_exponents(0, 3, 3))
    assert (explores == expected).all()


def test_the_random_action_is_taken_where_the_environment_explores():
    q_values = np.array([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0], [0.0, 0.0, 9.0]])
    explores = np.array([True, False, False])
    assert choose(q_values, explores, np.array([2, 2, 2])).tolist() == [2, 0, 2]


MASK = np.array([True, False, True, True, False])


def masked_policy():
    return EpsilonGreedy(5, np.ones(NUM_ROWS), np.random.default_rng(12), has_masks=True)


def test_random_actions_are_uniform_among_the_legal_ones():
    _, numbers = masked_policy().draw(1, 1.0)
    actions = random_actions(numbers[0], np.tile(MASK, (NUM_ROWS, 1)))
    counts = np.bincount(actions, minlength=5)
    assert counts[~MASK].tolist() == [0, 0]
    assert_frequencies(counts[MASK], np.full(3, 1 / 3))
    with pytest.raises(AssertionError):
        assert_frequencies(counts[MASK], [0.3, 0.35, 0.35])


def test_each_environment_has_its_own_legal_actions():
    rng = np.random.default_rng(13)
    legal = rng.random((NUM_ROWS, 5)) < 0.4
    legal[0] = False
    _, numbers = masked_policy().draw(1, 1.0)
    numbers[0, :2] = np.nextafter(1.0, 0.0)  # The largest that can be drawn.
    actions = random_actions(numbers[0], legal)
    has_one = legal.any(axis=1)
    assert legal[np.arange(NUM_ROWS), actions][has_one].all()
    assert (actions[~has_one] == 0).all()


def test_whether_one_explores_does_not_depend_on_masks():
    unmasked = EpsilonGreedy(5, np.ones(8), np.random.default_rng(12))
    masked = EpsilonGreedy(5, np.ones(8), np.random.default_rng(12), has_masks=True)
    assert (unmasked.draw(4, 0.5)[0] == masked.draw(4, 0.5)[0]).all()


@pytest.mark.parametrize("worker", [1, 2])
def test_a_runner_takes_its_place_in_the_ladder_of_all(worker):
    config = runner_config("CartPole-v1", 2, num_env_runners=2, per_env_epsilon=True)
    runner = ApexEnvRunner(config=config, worker_index=worker)
    runner.module.compute_q_values = always_the_first_action
    actions = runner.collect(4000, epsilon=0.8).actions
    rates = 0.8 ** ladder_exponents(2 * (worker - 1), 2, 4)
    for column, rate in zip(actions.T, rates, strict=True):
        assert_frequencies(np.bincount(column, minlength=2), [1 - rate / 2, rate / 2])


def always_the_first_action(batch):
    q_values = batch["obs"].new_zeros((len(batch["obs"]), 2))
    q_values[:, 0] = 1.0
    return {"qf_preds": q_values}
