# SPDX-License-Identifier: MIT
"""IQN: by hand, and against a loop over pairs of fractions in plain Python."""

import numpy as np
import pytest
import torch

from rllib_per.objectives import ObjectiveSettings, Outputs
from rllib_per.objectives.fractions import UpdateTaus, midpoints
from rllib_per.objectives.heads import Streams
from rllib_per.objectives.implicit_quantile import CosineHead, ImplicitQuantile, cosines
from tests.support.tables import A, batch, tables, transitions

N, N_TARGET, K = 4, 3, 5
CPU = torch.device("cpu")


class Curves:
    """Networks whose values are z_τ(s, a) = q + slope·(τ − ½), from tables of (q, slope).

    Fractions come from a generator, and each call is noted with those that it got.
    """

    def __init__(self, online, target, num_taus):
        self._online, self._target, self._num_taus = online, target, num_taus
        self._generator = torch.Generator().manual_seed(0)
        self.calls = []

    def online(self, obs, mask=None, num_taus=None):
        return self._outputs("online", self._online[obs], num_taus)

    def target(self, obs, mask=None, num_taus=None):
        return self._outputs("target", self._target[obs], num_taus)

    def _outputs(self, name, curves, num_taus):
        count = self._num_taus if num_taus is None else num_taus
        taus = torch.rand(len(curves), count, generator=self._generator)
        self.calls.append((name, taus))
        raw = curves[:, :, :1] + curves[:, :, 1:] * (taus.unsqueeze(1) - 0.5)
        return Outputs(raw.mean(dim=2), raw, taus)


# -- by hand -------------------------------------------------------------------------------------


def test_a_fraction_is_embedded_in_cosines_from_frequency_zero_on():
    given = cosines(torch.tensor([[0.0, 0.5, 1.0]]), 3)[0].tolist()
    np.testing.assert_allclose(given, [[1, 1, 1], [1, 0, -1], [1, -1, 1]], atol=1e-6)


def test_the_head_multiplies_features_by_the_embedding_and_centres_each_fraction():
    head = CosineHead(2, A, 4, Streams((), "relu"))
    features, taus = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.2, 0.9]])
    raw = head(features, None, taus)
    assert raw.shape == (1, A, 2)
    for k, tau in enumerate(taus[0]):
        cos = torch.cos(torch.pi * tau * torch.arange(4))
        embedded = (head.embedding.weight @ cos + head.embedding.bias).clamp(min=0)
        inputs = features[0] * embedded
        value = head.value[0].weight @ inputs + head.value[0].bias
        advantages = head.advantage[0].weight @ inputs + head.advantage[0].bias
        torch.testing.assert_close(raw[0, :, k], value + advantages - advantages.mean())


def test_a_head_of_one_stream_has_no_value():
    head = CosineHead(2, A, 4, Streams((8,), "relu", dueling=False))
    assert head.value is None
    assert head(torch.ones(3, 2), None, torch.rand(3, 7)).shape == (3, A, 7)


def test_advantages_are_centred_over_legal_actions_alone():
    head = CosineHead(2, A, 4, Streams())
    mask = torch.tensor([[True, False, True]])
    features, taus = torch.ones(1, 2), torch.rand(1, 6)
    raw = head(features, mask, taus)
    inputs = features.unsqueeze(1) * head.embedding(cosines(taus, 4)).clamp(min=0)
    value = head.value(inputs)[0, :, 0]
    torch.testing.assert_close(raw[0, [0, 2]].mean(dim=0), value)


# -- fractions -----------------------------------------------------------------------------------


def test_fractions_to_act_with_are_the_middles_of_equal_parts():
    assert midpoints(4, like=torch.zeros(1)).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_fractions_follow_from_seed_and_update_and_are_new_for_every_pass():
    def drawn(seed, update):
        taus = UpdateTaus(K, seed, CPU)
        taus.begin(update)
        return [taus.draw(6), taus.draw(6, 2)]

    first, other_pass = drawn(1, 7)
    assert first.shape == (6, K)
    assert other_pass.shape == (6, 2)
    assert ((first >= 0) & (first < 1)).all()
    assert torch.equal(first, drawn(1, 7)[0])
    assert not torch.equal(first, drawn(1, 8)[0])
    assert not torch.equal(first, drawn(2, 7)[0])
    assert not torch.equal(first[:, :2], other_pass)


def test_a_learner_takes_the_fractions_of_its_rows(monkeypatch):
    def drawn(rank, num_learners, num_rows):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        taus = UpdateTaus(K, 3, CPU, num_learners)
        taus.begin(1)
        return torch.cat([taus.draw(num_rows), taus.draw(num_rows)], dim=1)

    parts = [drawn(rank, 3, 2) for rank in range(3)]
    assert torch.equal(torch.cat(parts), drawn(0, 1, 6))


def test_a_draw_leaves_all_other_randomness_alone():
    before = torch.get_rng_state()
    taus = UpdateTaus(K, 0, CPU)
    taus.begin(1)
    taus.draw(100)
    assert torch.equal(torch.get_rng_state(), before)


# -- against a loop ------------------------------------------------------------------------------


def naive_losses(columns, networks, online, target, kappa):
    """One transition and one pair of fractions after the other, in float64."""
    *choosing, (_, taus) = networks.calls
    target_taus = next(t for name, t in choosing if t.shape[1] == N_TARGET)
    ((choosing_name, acting_taus),) = [each for each in choosing if each[1].shape[1] == K]

    def values(curves, state, action, fractions):
        q, slope = curves[state, action].double().tolist()
        return [q + slope * (float(tau) - 0.5) for tau in fractions]

    rows = []
    for i, state, next_state, legal in transitions(columns):
        curves = online if choosing_name == "online" else target
        means = {a: np.mean(values(curves, next_state, a, acting_taus[i])) for a in legal}
        best = max(means, key=means.get)
        returns, discount = float(columns.n_step_returns[i]), float(columns.bootstrap_discounts[i])
        goals = [returns + discount * z for z in values(target, next_state, best, target_taus[i])]
        given = values(online, state, int(columns.actions[i]), taus[i])
        loss = priority = 0.0
        for tau, value in zip(taus[i].tolist(), given, strict=True):
            for goal in goals:
                size = abs(goal - value)
                priority += size / N_TARGET
                size = size**2 / 2 / kappa if size <= kappa else size - kappa / 2
                loss += size * abs(tau - (goal < value)) / N_TARGET
        rows.append((loss, np.mean(goals) - np.mean(given), np.mean(given), priority))
    return np.array(rows).T


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", ["td_error", "quantile_td_errors"])
def test_losses_are_those_of_a_naive_loop(double_q, masked, kind):
    settings = ObjectiveSettings(double_q=double_q, priority=kind)
    objective = ImplicitQuantile(settings, N, N_TARGET, K, kappa=0.7)
    for seed in range(5):
        online, target = tables(seed, num_states=48, num_outputs=2)
        columns = batch(seed, size=24, masked=masked)
        networks = Curves(online, target, objective.num_acting_taus)
        losses = objective.losses(columns, networks)
        loss, td_error, q_taken, priority = naive_losses(columns, networks, online, target, 0.7)
        np.testing.assert_allclose(losses.loss, loss, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses.td_errors, td_error, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses.q_taken, q_taken, rtol=1e-4, atol=1e-5)
        expected = td_error if kind == "td_error" else priority
        np.testing.assert_allclose(losses.priority, expected, rtol=1e-4, atol=1e-5)
        names = ["target", "online" if double_q else "target", "online"]
        assert [name for name, _ in networks.calls] == names
