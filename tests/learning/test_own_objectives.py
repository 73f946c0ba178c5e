# SPDX-License-Identifier: MIT
"""Objectives of a user's own, through RLlib's learner."""

import numpy as np
import pytest
import torch

from tests.support.learner import START, build_learner, random_batch
from tests.support.objectives import ManyOutputs, Munchausen, OtherPriority, SampledFractions

OWN = [ManyOutputs, SampledFractions, Munchausen, OtherPriority]


@pytest.mark.parametrize("kind", OWN)
def test_an_objective_of_ones_own_learns(kind):
    learner, batch = build_learner(objective=kind, lr=1e-2), random_batch(size=16)
    torch.manual_seed(1)
    losses = []
    for _ in range(150):
        learner.update_from_replay(batch, timesteps=START)
        losses.append(learner.pop_metrics()["default_policy"]["qf_loss"].peek())
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


@pytest.mark.parametrize("kind", OWN)
def test_the_module_acts_by_the_mean_of_its_outputs(kind):
    learner, batch = build_learner(objective=kind), random_batch(size=16)
    net = learner.module["default_policy"].unwrapped()
    obs = torch.from_numpy(batch.obs)
    torch.manual_seed(3)
    outputs = net.q_network(obs)
    torch.manual_seed(3)
    q_values = net.compute_q_values({"obs": obs})["qf_preds"]
    expected = outputs.raw.mean(dim=2) if outputs.raw.ndim == 3 else outputs.raw
    torch.testing.assert_close(q_values, expected)
    assert q_values.shape == (16, 3)


def test_replay_gets_the_priority_and_metrics_the_td_error():
    learner, batch = build_learner(objective={"type": OtherPriority, "offset": 7.0}), random_batch()
    update = learner.update_from_replay(batch, timesteps=START)
    td_error = learner.pop_metrics()["default_policy"]["td_error_mean"].peek()
    errors = np.sqrt(update.td_errors - 7.0)
    assert (update.td_errors >= 7.0).all()
    assert td_error == pytest.approx(errors.mean(), rel=1e-4)


def test_a_network_with_q_values_only_is_refused_where_more_is_needed():
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from rllib_per.learning.module import ApexDQNModule
    from tests.support.learner import build_from, learner_config

    class Halved(ApexDQNModule):
        def compute_q_values(self, batch):
            return {"qf_preds": super().compute_q_values(batch)["qf_preds"] / 2}

    config = learner_config(double_q=False)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=Halved))
    learner, batch = build_from(config), random_batch()
    net = learner.module["default_policy"].unwrapped()
    with torch.no_grad():
        q_values = net.q_network(torch.from_numpy(batch.obs)).q.numpy() / 2
        next_q = net.target_q_network(torch.from_numpy(batch.next_obs)).q.numpy()
    taken = q_values[np.arange(len(batch)), batch.actions]
    expected = batch.n_step_returns + batch.bootstrap_discounts * next_q.max(axis=1) - taken
    update = learner.update_from_replay(batch, timesteps=START)
    np.testing.assert_allclose(update.td_errors, expected, rtol=1e-4, atol=1e-6)
    config = learner_config(objective=ManyOutputs)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=Halved))
    with pytest.raises(ValueError, match="ManyOutputs needs more outputs per action"):
        build_from(config)


def wrong(**changes):
    """An objective whose losses are changed."""

    class Wrong(OtherPriority):
        def losses(self, batch, networks):
            losses = super().losses(batch, networks)
            return losses._replace(
                **{name: change(getattr(losses, name)) for name, change in changes.items()}
            )

    return Wrong


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (wrong(loss=torch.mean), r"one number per transition, \(8,\): `loss` has the shape \(\)"),
        (wrong(priority=lambda p: p[:, None]), r"`priority` has the shape \(8, 1\)"),
        (wrong(loss=torch.Tensor.detach), "must return a `loss` with a gradient"),
        (
            wrong(priority=lambda p: p.clone().requires_grad_()),
            "must return a `priority` without a gradient, since it goes back to replay",
        ),
    ],
)
def test_losses_of_another_shape_are_named(kind, message):
    learner = build_learner(objective=kind)
    with pytest.raises(ValueError, match=message):
        learner.update_from_replay(random_batch(), timesteps=START)


def test_what_is_no_losses_is_named():
    class Pair(OtherPriority):
        def losses(self, batch, networks):
            return tuple(super().losses(batch, networks))

    learner = build_learner(objective=Pair)
    with pytest.raises(TypeError, match=r"Pair\.losses must return Losses: got a tuple"):
        learner.update_from_replay(random_batch(), timesteps=START)
