# SPDX-License-Identifier: MIT
"""Networks that diverge: what is told of it, and that nobody gets weights which are not finite."""

import re

import numpy as np
import pytest
import torch

from rllib_per.learning.local_learner import LocalLearner
from rllib_per.learning.q_proportion import QProportion
from rllib_per.replay import TrainingDivergedError
from rllib_per.settings.training import Training
from tests.support.learner import build_learner, random_batch

START = {"env_steps": 0, "episodes": 0, "updates": 0}


def one_learner():
    return LocalLearner(build_learner(), 60.0, Training(gamma=0.9))


def train(learners, *, lr, num_updates=200):
    for seed in range(num_updates):
        learners.update(random_batch(seed), timesteps=START, lr=lr)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if "out of all proportion" in r.getMessage()]


@pytest.mark.parametrize(
    ("gamma", "q", "rewards", "is_told"),
    [
        (0.99, 999.0, 1.0, False),
        (0.99, 1001.0, 1.0, True),
        (0.99, 1001.0, 3.0, False),  # What an n-step return of three such rewards allows.
        (0.99, 5.0, 1e-6, False),  # As networks begin.
        (0.99, 11.0, 1e-6, True),
        (0.99, 1e9, 0.0, False),  # Nothing is known of rewards yet.
        (1.0, 1e9, 1.0, False),  # Nor of their sums.
        (0.0, 11.0, 1.0, True),
        (0.99, float("nan"), 1.0, False),  # Another error's business.
    ],
)
def test_q_values_are_compared_with_what_rewards_add_up_to(caplog, gamma, q, rewards, is_told):
    proportion = QProportion(gamma)
    for _ in range(3):
        proportion.look(q, rewards)
    assert len(warnings_of(caplog)) == is_told


@pytest.mark.parametrize(("lr", "is_told"), [(1e-3, False), (1000.0, True)])
def test_a_learning_rate_out_of_all_proportion_is_told_once_with_numbers(caplog, lr, is_told):
    learners = one_learner()
    for _ in range(3):
        train(learners, lr=lr)
        learners.pop_metrics()
    told = warnings_of(caplog)
    assert len(told) == is_told
    if is_told:
        numbers = re.search(r"is (\S+) on average.* most (\S+) with.* than (\S+)\.", told[0])
        q, largest, bound = map(float, numbers.groups())
        assert q > 10 * bound
        assert bound == pytest.approx(largest / (1 - 0.9), rel=0.01)


def test_returns_of_every_batch_count_also_those_of_memory_used_again(caplog):
    learners = one_learner()
    batch = random_batch()
    largest = 0.0
    for k in range(100):
        batch.n_step_returns[:] = -50.0 if k == 70 else 0.5
        largest = max(largest, float(np.abs(batch.n_step_returns).max()))
        learners.update(batch, timesteps=START, lr=1e-3)
    (result,) = learners.pop_metrics()
    figures = result["default_policy"]
    assert figures["n_step_return_abs_max_lifetime"].peek() == largest == 50.0
    assert figures["qf_abs_mean"].peek() >= abs(figures["qf_mean"].peek())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_given_to_no_one(tmp_path, value):
    learner = build_learner()
    learner.save_to_path(tmp_path / "before")
    with torch.no_grad():
        next(learner.module["default_policy"].unwrapped().q_network.parameters())[0] = value
    for way in (
        learner.export_weights,
        learner.get_state,
        lambda: learner.get_state(components="rl_module"),
        lambda: learner.save_to_path(tmp_path / "after"),
    ):
        with pytest.raises(TrainingDivergedError, match=r"1 of the network's \d+ tensors hold NaN"):
            way()
    learner.get_state(components="optimizer")
    learner.restore_from_path(tmp_path / "before")
    learner.export_weights()
