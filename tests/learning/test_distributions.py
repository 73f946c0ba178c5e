# SPDX-License-Identifier: MIT
"""What RLlib's learner makes of each objective, against what is known of small games."""

import logging

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from rllib_per.learning.atom_range import AtomRange
from rllib_per.learning.local_learner import LocalLearner
from rllib_per.replay.fragment import TransitionBatch
from rllib_per.settings.training import Training
from tests.support.learner import START, build_learner

FIRST, SECOND = np.float32([1, 0, 0, 0]), np.float32([0, 1, 0, 0])

# Of the second state: -1 in three games of ten, and 1 in seven. The first brings 0.5 and half that.
RETURNS, SHARES = np.array([-1.0, 1.0]), np.array([0.3, 0.7])
KNOWN = {"first": 0.5 + 0.5 * RETURNS, "second": RETURNS}


def two_steps(num_actions=3):
    """All that there is to know of a game of two steps, ten times, whatever is played."""
    actions = np.repeat(np.arange(num_actions), 20)
    is_first = np.tile([True] * 10 + [False] * 10, num_actions)
    ends = np.tile([-1.0] * 3 + [1.0] * 7, 2 * num_actions)
    ones = np.ones(len(actions), np.float32)
    return TransitionBatch(
        obs=np.where(is_first[:, None], FIRST, SECOND),
        actions=actions,
        n_step_returns=np.where(is_first, 0.5, ends).astype(np.float32),
        next_obs=np.where(is_first[:, None], SECOND, FIRST),
        bootstrap_discounts=np.where(is_first, 0.5, 0.0).astype(np.float32),
        importance_weights=ones,
        ids=np.arange(len(actions)),
    )


def atoms_of(raw):
    return np.linspace(-1.5, 1.5, 61), torch.softmax(raw, dim=0)


def equal_shares(raw):
    return raw, np.full(len(raw), 1 / len(raw))


# Of each kind: how it is asked for, and what its outputs of an action say: values, and shares.
KINDS = {
    "atoms": ({"num_atoms": 61, "v_min": -1.5, "v_max": 1.5}, atoms_of),
    # With κ = 1, errors up to that count as squares, and peaks closer than 2 run together.
    "quantiles": (
        {"distribution": {"type": "quantile", "num_quantiles": 40, "kappa": 0.0}},
        equal_shares,
    ),
    "fractions": ({"distribution": {"type": "implicit_quantile", "kappa": 0.0}}, equal_shares),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_of_two_peaks_is_learned(kind):
    settings, distribution_of = KINDS[kind]
    learner, batch = build_learner(**settings, target_network_update_freq=1), two_steps()
    for update in range(400):
        lr = 1e-2 if update < 300 else 1e-3
        learner.update_from_replay(batch, timesteps={"env_steps": update, "episodes": 0}, lr=lr)
    net = learner.module["default_policy"].unwrapped().q_network
    with torch.no_grad():
        outputs = net(torch.from_numpy(np.stack([FIRST, SECOND])))
    for state, known in enumerate(KNOWN.values()):
        for action in range(3):
            values, shares = distribution_of(outputs.raw[state, action])
            assert wasserstein_distance(values, known, shares, SHARES) < 0.05
    np.testing.assert_allclose(outputs.q[0], 0.7, atol=0.02)
    np.testing.assert_allclose(outputs.q[1], 0.4, atol=0.02)
    # The mean alone, which is what Q-values say, is far from it.
    assert wasserstein_distance([0.4], RETURNS, None, SHARES) > 0.8


# -- the bonus -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["target", "online"])
def test_the_bonus_makes_the_gaps_between_actions_larger(policy):
    """Q = r + α·τ·log π(a) has gaps of Δr/(1 − α), where plain Q-learning has Δr."""
    actions = np.repeat(np.arange(3), 10)
    obs = np.tile(FIRST, (30, 1))
    batch = TransitionBatch(
        obs=obs,
        actions=actions,
        n_step_returns=0.05 * actions.astype(np.float32),
        next_obs=obs,
        bootstrap_discounts=np.zeros(30, np.float32),
        importance_weights=np.ones(30, np.float32),
        ids=np.arange(30),
    )
    munchausen = {"alpha": 0.8, "tau": 1.0, "clip": -9.0, "policy": policy}
    gaps = {}
    for name, asked in (("with", munchausen), ("without", None)):
        learner = build_learner(munchausen=asked, target_network_update_freq=1)
        for update in range(400):
            lr = 1e-2 if update < 300 else 1e-3
            counts = {"env_steps": update, "episodes": 0}
            learner.update_from_replay(batch, timesteps=counts, lr=lr)
        net = learner.module["default_policy"].unwrapped().q_network
        gaps[name] = np.diff(net(torch.from_numpy(FIRST[None])).q.detach()[0])
    np.testing.assert_allclose(gaps["without"], 0.05, atol=0.01)
    np.testing.assert_allclose(gaps["with"], 0.05 / (1 - 0.8), atol=0.02)


# -- returns beyond the atoms --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_atoms", "targets", "is_told"),
    [
        (51, (-10.0, 10.0), False),
        (51, (-10.001, 10.001), False),  # Rounding.
        (51, (0.0, 10.9), True),
        (51, (-10.9, 0.0), True),
        (51, (float("nan"), float("nan")), False),  # Another error's business.
        (1, (-99.0, 99.0), False),
    ],
)
def test_targets_beyond_the_atoms_are_told_once(caplog, num_atoms, targets, is_told):
    atom_range = AtomRange(num_atoms, -10.0, 10.0)
    for _ in range(3):
        atom_range.look(*targets)
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == is_told
    assert all("cut at v_min -10 and v_max 10" in message for message in told)


@pytest.mark.parametrize(("v_max", "is_told"), [(0.5, True), (1.5, False)])
def test_returns_that_leave_the_atoms_are_told_once_with_numbers(caplog, v_max, is_told):
    settings = {"num_atoms": 21, "v_min": -1.5, "v_max": v_max}
    learners = LocalLearner(build_learner(**settings), 60.0, Training(**settings))
    for _ in range(3):
        learners.update(two_steps(), timesteps=START | {"updates": 0}, lr=1e-3)
        learners.pop_metrics()
    told = [r.getMessage() for r in caplog.records if "leave the support" in r.getMessage()]
    assert len(told) == is_told
    assert all("from -1 to 1, and are cut at v_min -1.5 and v_max 0.5" in text for text in told)


def test_updates_report_the_range_of_their_targets():
    learner, batch = build_learner(num_atoms=21, v_min=0.0, v_max=4.0), two_steps()
    learner.update_from_replay(batch, timesteps=START)
    figures = learner.pop_metrics()["default_policy"]
    assert figures["qf_target_min"].peek() == -1.0
    assert figures["qf_target_max"].peek() == pytest.approx(0.5 + 0.5 * 2.0, abs=0.2)
