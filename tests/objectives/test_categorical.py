# SPDX-License-Identifier: MIT
"""C51: by hand, against a loop over atoms in plain Python, and on a distribution that is known."""

import math

import numpy as np
import pytest
import torch

from rllib_per.objectives import ObjectiveSettings, TensorBatch
from rllib_per.objectives.categorical import Categorical, cross_entropy, entropy, project
from rllib_per.objectives.heads import Streams
from tests.support.tables import A, Table, batch, tables, transitions

K, V_MIN, V_MAX = 7, -2.0, 3.0


def categorical(**settings):
    return Categorical(ObjectiveSettings(**settings), K, V_MIN, V_MAX)


# -- by hand -------------------------------------------------------------------------------------


def one(n_step_return, discount, probabilities=(0.2, 0.5, 0.3)):
    """On the atoms -1, 0 and 1."""
    columns = (probabilities, n_step_return, discount)
    return project(*(torch.tensor([column]) for column in columns), -1.0, 1.0)[0].tolist()


@pytest.mark.parametrize(
    ("n_step_return", "discount", "expected"),
    [
        (0.0, 1.0, [0.2, 0.5, 0.3]),
        (0.0, 0.0, [0.0, 1.0, 0.0]),  # An end with return 0.
        (0.25, 0.0, [0.0, 0.75, 0.25]),
        (-1.0, 0.0, [1.0, 0.0, 0.0]),
        (7.0, 0.0, [0.0, 0.0, 1.0]),  # Beyond the atoms.
        (-7.0, 1.0, [1.0, 0.0, 0.0]),
        # -1, 0, 1 become 0, 0.5, 1
        (0.5, 0.5, [0.0, 0.2 + 0.25, 0.25 + 0.3]),
        # and -0.5, 0.5, 1.5
        (0.5, 1.0, [0.1, 0.1 + 0.25, 0.25 + 0.3]),
    ],
)
def test_moved_atoms_are_shared_out_to_their_neighbours(n_step_return, discount, expected):
    assert one(n_step_return, discount) == pytest.approx(expected, abs=1e-6)


def test_the_entropy_of_what_is_certain_is_zero_and_the_loss_is_minus_log_p():
    certain = torch.tensor([[0.0, 1.0, 0.0]])
    assert entropy(certain).tolist() == [0.0]
    log_probabilities = torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert cross_entropy(log_probabilities, certain).item() == pytest.approx(math.log(2))
    halves = torch.tensor([[0.5, 0.5, 0.0]])
    assert entropy(halves).item() == pytest.approx(math.log(2))
    assert cross_entropy(log_probabilities, halves).item() == pytest.approx(1.5 * math.log(2))


def test_q_is_the_mean_of_the_atoms():
    objective = Categorical(ObjectiveSettings(), 3, -1.0, 1.0)
    logits = torch.tensor([[[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]]]).log()
    torch.testing.assert_close(objective.q_values(logits), torch.tensor([[0.1, -1.0]]))
    assert objective.q_values(logits.bfloat16()).dtype == torch.float32


def test_the_value_stream_moves_the_distribution():
    """Aggregated behind the softmax, or one value for all atoms, it would cancel out."""
    objective = categorical()
    head = objective.head(4, A, Streams((8,)))
    with torch.no_grad():
        before = objective.q_values(head(torch.ones(1, 4)))
        head.value[-1].bias += torch.linspace(-3, 3, K)
        after = objective.q_values(head(torch.ones(1, 4)))
    assert (after - before > 0.1).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: project(torch.zeros(2), torch.zeros(2), torch.zeros(2), 0.0, 1.0),
        lambda: project(torch.zeros(2, 3), torch.zeros(2, 1), torch.zeros(2), 0.0, 1.0),
        lambda: cross_entropy(torch.zeros(2, 3), torch.zeros(1, 3)),
    ],
)
def test_shapes_that_would_broadcast_by_mistake_are_refused(call):
    with pytest.raises(AssertionError):
        call()


# -- against a loop ------------------------------------------------------------------------------


def naive_losses(columns, online, target, double_q):
    """One transition and one atom after the other, in float64."""
    atoms = np.linspace(V_MIN, V_MAX, K)
    step = atoms[1] - atoms[0]

    def distribution(logits):
        shares = np.exp(logits.double().numpy())
        return shares / shares.sum()

    rows = []
    for i, state, next_state, legal in transitions(columns):
        choosing = online if double_q else target
        best = max(legal, key=lambda a: distribution(choosing[next_state, a]) @ atoms)
        bootstrap = distribution(target[next_state, best])
        goal = np.zeros(K)
        n_step_return = float(columns.n_step_returns[i])
        discount = float(columns.bootstrap_discounts[i])
        for z, p in zip(atoms, bootstrap, strict=True):
            place = (min(max(n_step_return + discount * z, V_MIN), V_MAX) - V_MIN) / step
            for k in range(K):
                goal[k] += p * max(0.0, 1.0 - abs(place - k))
        given = distribution(online[state, columns.actions[i]])
        loss = -(goal * np.log(given)).sum()
        kl = sum(m * math.log(m / p) for m, p in zip(goal, given, strict=True) if m > 0)
        td_error = n_step_return + discount * bootstrap @ atoms - given @ atoms
        rows.append((loss, td_error, kl, given @ atoms))
    return np.array(rows).T


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_losses_are_those_of_a_naive_loop(double_q, masked, seed):
    online, target = tables(seed, num_states=48, num_outputs=K)
    columns = batch(seed, size=24, masked=masked)
    loss, td_error, kl, q_taken = naive_losses(columns, online, target, double_q)
    for priority, expected in (("kl", kl), ("td_error", td_error)):
        objective = categorical(double_q=double_q, priority=priority)
        losses = objective.losses(columns, Table(online, target, objective))
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(losses.loss, loss, **close)
        np.testing.assert_allclose(losses.td_errors, td_error, **close)
        np.testing.assert_allclose(losses.priority, expected, **close)
        np.testing.assert_allclose(losses.q_taken, q_taken, **close)


def test_a_projection_keeps_all_mass_and_the_mean_within_the_atoms():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(1000, 51, generator=generator).softmax(dim=1)
    returns = 20 * torch.rand(1000, generator=generator) - 10
    discounts = torch.rand(1000, generator=generator)
    projected = project(probabilities, returns, discounts, -10.0, 10.0)
    assert (projected >= 0).all()
    torch.testing.assert_close(projected.sum(dim=1), torch.ones(1000))
    atoms = torch.linspace(-10, 10, 51)
    moved = (returns[:, None] + discounts[:, None] * atoms).clamp(-10, 10)
    torch.testing.assert_close((projected * atoms).sum(1), (probabilities * moved).sum(1),
                               rtol=1e-4, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize(
    ("v_min", "v_max"), [(-10.0, 10.0), (-21.0, 0.3), (0.0, 1e6), (-1e-3, 7e5)]
)
def test_rounding_at_the_ends_makes_no_negative_mass(v_min, v_max):
    """Whose logarithm, in the entropy, is NaN or −∞."""
    returns = torch.cat([torch.linspace(v_min, v_max, 999), torch.tensor([v_min, v_max] * 500)])
    certain = torch.zeros(len(returns), 51)
    certain[:, -1] = 1.0
    for discount in (0.0, 0.3, 1.0):
        projected = project(certain, returns, torch.full_like(returns, discount), v_min, v_max)
        assert (projected >= 0).all()
        assert entropy(projected).isfinite().all()


def test_the_priority_is_zero_where_nothing_is_left_to_learn():
    """The cross-entropy would still be the entropy of the target, here log 2."""
    halves = torch.full((2, A, K), -40.0)
    halves[:, :, [1, 3]] = 0.0
    columns = TensorBatch(*(torch.tensor([v]) for v in (0, 1, 0.0, 1, 1.0, 1.0)))
    for priority, expected in (("kl", 0.0), ("td_error", 0.0)):
        objective = categorical(priority=priority)
        losses = objective.losses(columns, Table(halves, halves, objective))
        assert losses.loss.item() == pytest.approx(math.log(2), abs=1e-5)
        assert losses.priority.item() == pytest.approx(expected, abs=1e-5)


def test_an_unbounded_td_error_is_told_where_the_atoms_end():
    objective = categorical()
    columns = TensorBatch(*(torch.tensor([v]) for v in (0, 1, 9.0, 1, 0.0, 1.0)))
    losses = objective.losses(columns, Table(*torch.zeros(2, 2, A, K), objective))
    middle = (V_MIN + V_MAX) / 2
    assert losses.td_errors.item() == pytest.approx(9.0 - middle, abs=1e-5)
