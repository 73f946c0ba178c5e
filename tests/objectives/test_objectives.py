# SPDX-License-Identifier: MIT
"""The seam between a network and what it learns, without Ray."""

import numpy as np
import pytest
import torch

from rllib_per.objectives import (
    Expected,
    Objective,
    ObjectiveSettings,
    TensorBatch,
    build_objective,
)
from rllib_per.objectives.heads import Streams
from rllib_per.settings.objectives import OBJECTIVES
from tests.support.objectives import OtherPriority
from tests.support.tables import A, B, Table, batch, tables


def naive_td_errors(columns, online, target, double_q):
    """One transition after the other, in plain Python."""
    td_errors = []
    for i in range(len(columns.actions)):
        state, next_state = int(columns.obs[i]), int(columns.next_obs[i])
        legal = range(A)
        if columns.next_action_mask is not None:
            legal = [a for a in range(A) if columns.next_action_mask[i, a]]
        choosing = online if double_q else target
        bootstrap = 0.0
        if len(legal):
            best = max(legal, key=lambda a: float(choosing[next_state, a]))
            bootstrap = float(target[next_state, best])
        goal = float(columns.n_step_returns[i]) + float(columns.bootstrap_discounts[i]) * bootstrap
        td_errors.append(goal - float(online[state, columns.actions[i]]))
    return td_errors


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_expected_value_is_that_of_a_naive_loop(double_q, masked):
    online, target = tables()
    columns = batch(masked=masked)
    losses = Expected(ObjectiveSettings(double_q=double_q)).losses(columns, Table(online, target))
    expected = naive_td_errors(columns, online, target, double_q)
    np.testing.assert_allclose(losses.td_errors, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(losses.priority, losses.td_errors)
    assert torch.equal(losses.q_taken, online[columns.obs, columns.actions])


def test_double_q_lets_the_online_network_choose_and_the_target_network_judge():
    online = torch.tensor([[0.0, 0.0, 0.0], [1.0, 3.0, 2.0]])
    target = torch.tensor([[0.0, 0.0, 0.0], [10.0, 20.0, 30.0]])
    one = TensorBatch(*(torch.tensor([v]) for v in (0, 0, 0.0, 1, 1.0, 1.0)))
    for double_q, bootstrap in ((True, 20.0), (False, 30.0)):
        objective = Expected(ObjectiveSettings(double_q=double_q))
        assert objective.losses(one, Table(online, target)).td_errors.tolist() == [bootstrap]


def test_masks_reach_the_networks_beside_their_observations():
    columns, networks = batch(masked=True), Table(*tables())
    Expected(ObjectiveSettings()).losses(columns, networks)
    expected = [columns.next_action_mask, columns.next_action_mask, columns.action_mask]
    assert [mask is own for (_, mask), own in zip(networks.calls, expected, strict=True)]
    assert [name for name, _ in networks.calls] == ["target", "online", "online"]


def test_rows_of_sequences_are_rows():
    online, target = tables(num_states=24)
    columns = batch(size=12)
    objective = Expected(ObjectiveSettings())
    whole = objective.losses(columns, Table(online, target)).loss.reshape(3, 4)
    for t in range(3):
        part = TensorBatch._make(
            None if c is None else c[4 * t : 4 * t + 4] for c in columns
        )  # fmt: skip
        torch.testing.assert_close(objective.losses(part, Table(online, target)).loss, whole[t])


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("num_outputs", [None, 1, 4])
def test_the_default_head_has_k_outputs_per_action_and_q_is_their_mean(dueling, num_outputs):
    objective = Expected(ObjectiveSettings())
    objective.num_outputs = num_outputs
    head = objective.head(8, A, Streams((16,), "relu", dueling))
    raw = head(torch.randn(B, 8))
    if num_outputs is None:
        assert raw.shape == (B, A)
        assert objective.q_values(raw) is raw
    else:
        assert raw.shape == (B, A, num_outputs)
        torch.testing.assert_close(objective.q_values(raw), raw.mean(dim=2))


# -- naming one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("expected", Expected),
        ({"type": "expected"}, Expected),
        (OtherPriority, OtherPriority),
        ("tests.support.objectives.OtherPriority", OtherPriority),
        ({"type": OtherPriority, "offset": 2.0}, OtherPriority),
    ],
    ids=str,
)
def test_an_objective_is_named_by_word_class_path_or_mapping(spec, kind):
    objective = build_objective(spec, ObjectiveSettings(double_q=False))
    assert type(objective) is kind
    assert not objective.settings.double_q


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("expectde", "must be one of expected.*did you mean 'expected'"),
        ("tests.support.objectives.Missing", "cannot be imported: module .* has no attribute"),
        ("no.such.module", "cannot be imported: No module named 'no'"),
        (dict, "must be a subclass of rllib_per.objectives.Objective: got <class 'dict'>"),
        (None, "must be a subclass of rllib_per.objectives.Objective: got None"),
        ({"type": "expected", "alpha": 1}, "cannot be made of {'alpha': 1}: .*alpha"),
        (Objective, "cannot be made of {}: .*abstract"),
    ],
    ids=str,
)
def test_what_is_no_objective_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        build_objective(spec)


def test_every_name_stands_for_an_objective():
    for name, path in OBJECTIVES.items():
        kind = type(build_objective(name))
        assert f"{kind.__module__}.{kind.__qualname__}" == path
