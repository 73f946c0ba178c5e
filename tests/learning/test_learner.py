# SPDX-License-Identifier: MIT
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import tree
from ray.rllib.core.rl_module.apis import QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from rllib_per.learning.module import ApexDQNModule
from rllib_per.replay import TransitionBatch
from tests.support.learner import (
    ALWAYS,
    OBJECTIVES,
    START,
    build_from,
    build_learner,
    learner_config,
    net,
    parameters,
    random_batch,
)


def target_parameters(learner):
    return torch.cat([p.reshape(-1) for p in net(learner).target_q_network.parameters()])


def peek(result, *keys):
    for key in keys:
        result = result[key]
    return result.peek()


def rllib_batch(batch):
    """The same transitions as RLlib's DQN loss wants them."""
    columns = SampleBatch(
        obs=batch.obs,
        new_obs=batch.next_obs,
        actions=batch.actions,
        rewards=batch.n_step_returns,
        terminateds=batch.bootstrap_discounts == 0,
        weights=batch.importance_weights,
        n_step=np.ones(len(batch), np.float32),
    )
    return MultiAgentBatch({"default_policy": columns}, len(batch))


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("td_error_loss_fn", ["huber", "mse"])
@pytest.mark.parametrize(("grad_clip", "grad_clip_by"), [(0.1, "global_norm"), (None, "value")])
def test_a_lean_step_is_the_step_of_rllibs_own_update(
    double_q, td_error_loss_fn, grad_clip, grad_clip_by
):
    settings = {
        "double_q": double_q,
        "td_error_loss_fn": td_error_loss_fn,
        "grad_clip": grad_clip,
        "grad_clip_by": grad_clip_by,
        "target_network_update_freq": 10,
    }
    ours, theirs = build_learner(**settings), build_learner(**settings)
    assert torch.equal(parameters(ours), parameters(theirs))
    for seed in range(12):
        batch = random_batch(seed)
        update = ours.update_from_replay(batch, timesteps={"env_steps": 4 * seed, "episodes": 0})
        result = theirs.update(
            batch=rllib_batch(batch), timesteps={"num_env_steps_sampled_lifetime": 4 * seed}
        )
        td_errors = peek(result, "default_policy", "td_error")
        np.testing.assert_allclose(
            np.abs(update.td_errors), np.ravel(td_errors), rtol=1e-3, atol=1e-6
        )
    torch.testing.assert_close(parameters(ours), parameters(theirs))
    torch.testing.assert_close(target_parameters(ours), target_parameters(theirs))


def test_td_errors_are_signed_and_stand_beside_their_ids():
    learner, batch = build_learner(), random_batch(size=6)
    reference = copy.deepcopy(net(learner))
    update = learner.update_from_replay(batch, timesteps=START)
    with torch.no_grad():
        q_values = reference.q_network(torch.from_numpy(batch.obs)).q.numpy()
        best = reference.q_network(torch.from_numpy(batch.next_obs)).q.numpy().argmax(1)
        next_q = reference.target_q_network(torch.from_numpy(batch.next_obs)).q.numpy()
    rows = np.arange(6)
    targets = batch.n_step_returns + batch.bootstrap_discounts * next_q[rows, best]
    assert np.array_equal(update.ids, batch.ids)
    assert update.td_errors.dtype == np.float32
    np.testing.assert_allclose(update.td_errors, targets - q_values[rows, batch.actions], rtol=1e-4)
    assert learner.flush() is None


def test_td_errors_move_with_their_rows():
    batch, order = random_batch(size=32), np.random.default_rng(0).permutation(32)
    shuffled = TransitionBatch(**batch.map_columns(lambda column, _: column[order]))
    straight = build_learner().update_from_replay(batch, timesteps=START)
    mixed = build_learner().update_from_replay(shuffled, timesteps=START)
    assert np.array_equal(mixed.ids, straight.ids[order])
    np.testing.assert_allclose(mixed.td_errors, straight.td_errors[order], rtol=1e-4, atol=1e-6)


def test_an_importance_weight_of_zero_silences_a_transition():
    batch = random_batch()
    silent = replace(batch, importance_weights=np.zeros(len(batch), np.float32))
    learner = build_learner(optimizer={"type": "rmsprop"})
    before = parameters(learner)
    update = learner.update_from_replay(silent, timesteps=START)
    assert torch.equal(parameters(learner), before)
    assert np.abs(update.td_errors).min() > 0


def test_log_gradients_reports_their_norm_without_clipping_them():
    key = "gradients_default_optimizer_global_norm"
    silent = build_learner(grad_clip=None)
    logging = build_learner(grad_clip=None, log_gradients=True)
    for learner in (silent, logging):
        learner.update_from_replay(random_batch(), timesteps=START)
    assert torch.equal(parameters(silent), parameters(logging))
    assert key not in silent.pop_metrics()["default_policy"]
    assert peek(logging.pop_metrics(), "default_policy", key) > 0


def test_next_observations_get_no_gradient():
    learner, batch = build_learner(), random_batch()
    kept = []
    q_network = net(learner).q_network
    q_network.register_forward_hook(lambda _, __, out: kept.append(out.q.requires_grad))
    learner.update_from_replay(batch, timesteps=START)
    assert sorted(kept) == [False, True]


def test_batches_are_read_and_never_written():
    learner, batch = build_learner(), random_batch()
    before = copy.deepcopy(batch)
    for column in vars(batch).values():
        if isinstance(column, np.ndarray):
            column.flags.writeable = False  # As Ray's object store hands them out.
    learner.update_from_replay(batch, timesteps=START)
    for name in ("obs", "next_obs", "actions", "n_step_returns", "importance_weights"):
        assert np.array_equal(getattr(batch, name), getattr(before, name))


def test_learning_reduces_td_errors():
    learner, batch = build_learner(lr=1e-2), random_batch(size=16)
    errors = [
        np.abs(learner.update_from_replay(batch, timesteps=START).td_errors).mean()
        for _ in range(200)
    ]
    assert errors[-1] < 0.1 * errors[0]


def test_the_learning_rate_is_the_callers():
    learner = build_learner(lr=[[0, 0.5], [10, 0.25]])
    learner.update_from_replay(random_batch(), timesteps=START)
    assert peek(learner.pop_metrics(), "default_policy", "default_optimizer_learning_rate") == 0.5
    before = parameters(learner)
    learner.update_from_replay(random_batch(), timesteps=START, lr=0.0)
    assert torch.equal(parameters(learner), before)


@pytest.mark.parametrize(
    ("unit", "frequency", "expected"),
    [
        ("env_steps", 10, [False, False, False, True, False, False, False, True]),
        ("updates", 3, [False, False, True, False, False, True, False, False]),
        ("episodes", 2, [False, False, True, False, True, False, True, False]),
    ],
)
def test_target_networks_follow_by_env_steps_updates_or_episodes(unit, frequency, expected):
    learner = build_learner(target_network_update_freq=frequency, target_network_update_unit=unit)
    followed = []
    for update in range(8):
        learner.update_from_replay(
            random_batch(update), timesteps={"env_steps": 3 * update + 1, "episodes": update}
        )
        followed.append(torch.equal(parameters(learner), target_parameters(learner)))
    assert followed == expected


def test_a_soft_update_goes_a_part_of_the_way():
    learner = build_learner(
        tau=0.25, target_network_update_freq=1, target_network_update_unit="updates"
    )
    before = target_parameters(learner)
    learner.update_from_replay(random_batch(), timesteps=START)
    expected = 0.25 * parameters(learner) + 0.75 * before
    torch.testing.assert_close(target_parameters(learner), expected)


def test_a_restored_learner_goes_on_exactly_where_the_first_one_was(tmp_path):
    settings = {"target_network_update_freq": 5, "target_network_update_unit": "updates"}
    first, second = build_learner(**settings), build_learner(**settings)
    for seed in range(8):
        first.update_from_replay(random_batch(seed), timesteps=START)
    first.save_to_path(tmp_path)
    for seed in range(20):  # Ahead of the checkpoint, and elsewhere.
        second.update_from_replay(random_batch(100 + seed), timesteps=START)
    second.restore_from_path(tmp_path)
    assert torch.equal(parameters(first), parameters(second))
    for seed in range(8, 14):
        for learner in (first, second):
            learner.update_from_replay(random_batch(seed), timesteps=START)
    assert torch.equal(parameters(first), parameters(second))
    assert torch.equal(target_parameters(first), target_parameters(second))
    results = first.pop_metrics(), second.pop_metrics()
    for key in ("weights_seq_no", "last_target_update_ts"):
        assert peek(results[0], "default_policy", key) == peek(results[1], "default_policy", key)


def test_metrics_are_means_over_all_updates_under_rllibs_keys():
    learner = build_learner(target_network_update_freq=25, target_network_update_unit="updates")
    updates = [
        learner.update_from_replay(random_batch(seed), timesteps=START) for seed in range(100)
    ]
    result = learner.pop_metrics()
    td_error_mean = np.mean([np.abs(update.td_errors) for update in updates])
    assert peek(result, "default_policy", "td_error_mean") == pytest.approx(td_error_mean, rel=1e-5)
    assert peek(result, "default_policy", "num_target_updates") == 4
    for owner, key in (
        ("__all_modules__", "num_env_steps_trained_lifetime"),
        ("__all_modules__", "num_module_steps_trained_lifetime"),
        ("default_policy", "num_module_steps_trained_lifetime"),
    ):
        assert peek(result, owner, key) == 800
    module = result["default_policy"]
    assert {"qf_loss", "qf_mean", "qf_min", "qf_max", "weights_seq_no"} <= module.keys()
    assert module["gradients_default_optimizer_global_norm"].peek() > 0


def test_rllibs_own_update_still_trains_and_reports():
    learner = build_learner(lr={"type": "linear", "initial": 1e-3, "final": 0.0, "steps": 10})
    before = parameters(learner)
    result = learner.update(
        batch=rllib_batch(random_batch()), timesteps={"num_env_steps_sampled_lifetime": 5}
    )
    assert not torch.equal(parameters(learner), before)
    assert peek(result, "default_policy", "default_optimizer_learning_rate") == pytest.approx(5e-4)
    assert peek(result, "__all_modules__", "num_env_steps_trained_lifetime") == 8


@pytest.mark.parametrize("settings", [{"noisy": True, "redo": ALWAYS}, OBJECTIVES["all at once"]])
def test_rllibs_own_update_is_the_lean_one_with_its_noise_fractions_and_new_units(settings):
    lean, rllibs = (build_learner(**settings | {"redo": ALWAYS}) for _ in range(2))
    for learner in (lean, rllibs):
        with torch.no_grad():
            net(learner).q_network.encoder[1].bias[:4] = -1e4
    recycled = []
    for seed in range(3):
        lean.update_from_replay(random_batch(seed), timesteps=START)
        result = rllibs.update(
            batch=rllib_batch(random_batch(seed)), timesteps={"num_env_steps_sampled_lifetime": 0}
        )
        recycled.append(
            [
                peek(figures, "default_policy", "num_units_recycled_lifetime")
                for figures in (lean.pop_metrics(), result)
            ]
        )
    assert (parameters(lean) - parameters(rllibs)).abs().max() < 1e-5
    by_lean, by_rllibs = zip(*recycled, strict=True)
    assert by_lean == by_rllibs
    assert by_lean[0] >= 4


def test_no_connector_pipeline_is_needed():
    learner = build_learner(add_default_connectors_to_learner_pipeline=False)
    assert learner.update_from_replay(random_batch(), timesteps=START) is not None


def test_a_fused_optimizer_changes_the_step_by_rounding_only():
    plain, other = (build_learner(fused_optimizer=value) for value in (False, True))
    for seed in range(5):
        for learner in (plain, other):
            learner.update_from_replay(random_batch(seed), timesteps=START)
    assert (parameters(plain) - parameters(other)).abs().max() < 1e-5


class LinearQ(TorchRLModule, QNetAPI, TargetNetworkAPI):
    """A user's module: nothing but RLlib's interfaces."""

    def setup(self):
        self.q = torch.nn.Linear(4, 3)

    def compute_q_values(self, batch):
        return {"qf_preds": self.q(batch["obs"])}

    def make_target_networks(self):
        self.target = copy.deepcopy(self.q).requires_grad_(False)

    def get_target_network_pairs(self):
        return [(self.q, self.target)]

    def forward_target(self, batch):
        return {"qf_preds": self.target(batch["obs"])}


class NoTarget(TorchRLModule):
    def setup(self):
        self.q = torch.nn.Linear(4, 3)


def test_a_users_own_module_is_trained_through_rllibs_interfaces():
    config = learner_config()
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=LinearQ))
    learner = build_from(config)
    before = net(learner).q.weight.detach().clone()
    learner.update_from_replay(random_batch(), timesteps=START)
    assert not torch.equal(net(learner).q.weight, before)


class OneValue(LinearQ):
    def compute_q_values(self, batch):
        return {"qf_preds": self.q(batch["obs"])[:, :1]}


class BareTensor(LinearQ):
    def forward_target(self, batch):
        return self.target(batch["obs"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OneValue, "OneValue.compute_q_values must return .* got a tensor of shape .*1. as 'qf"),
        (BareTensor, r"BareTensor.forward_target must return .* got a tensor of shape .*3\)$"),
    ],
)
def test_a_users_own_module_must_give_a_q_value_of_each_action(kind, message):
    config = learner_config()
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=kind))
    learner = build_from(config)
    with pytest.raises(ValueError, match=message):
        learner.update_from_replay(random_batch(), timesteps=START)


def test_a_module_without_those_interfaces_is_refused():
    config = learner_config()
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=NoTarget))
    with pytest.raises(TypeError, match="NoTarget must implement RLlib's QNetAPI"):
        build_from(config)


def test_a_learner_leaves_the_state_that_it_takes_over_as_it_is():
    first = build_learner()
    first.update_from_replay(random_batch(), timesteps=START)
    given = first.get_state()
    before = copy.deepcopy(given["optimizer"])
    second = build_learner(seed=8)
    second.take_over(given)
    second.update_from_replay(random_batch(1), timesteps=START)
    tree.map_structure(np.testing.assert_array_equal, given["optimizer"], before)


def test_a_learner_that_takes_over_weights_alone_has_a_target_network_of_the_same():
    given = build_learner().export_weights()[1]
    learner = build_learner(seed=8)
    learner.take_over(given)
    assert torch.equal(target_parameters(learner), parameters(learner))
    taken = learner.export_weights()[1]["rl_module"]
    tree.map_structure(np.testing.assert_array_equal, taken, given["rl_module"])


def test_every_result_says_how_many_parameters_there_are():
    learner = build_learner()
    network = learner.module["default_policy"].unwrapped().q_network
    for seed in range(3):
        learner.update_from_replay(random_batch(seed), timesteps=START)
        count = learner.pop_metrics()["default_policy"]["num_trainable_parameters"].peek()
        assert count == sum(p.numel() for p in network.parameters())


class Migrates(ApexDQNModule):
    """Takes states of another form, as its own `set_state` says."""

    def set_state(self, state):
        super().set_state(state)


def test_the_shapes_of_a_module_that_restores_itself_are_not_compared():
    names = build_learner().get_state("rl_module")["rl_module"]["default_policy"]
    assert build_learner().weight_shapes() == {name: names[name].shape for name in names}
    config = learner_config()
    config.rl_module(
        rl_module_spec=RLModuleSpec(module_class=Migrates, model_config={"hiddens": [8]})
    )
    assert build_from(config).weight_shapes() == {}


def test_a_gpu_that_is_not_there_is_told_before_anything_is_built(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^`num_gpus_per_learner` is 1, .* sees no GPU .* set "):
        build_learner(num_gpus_per_learner=1)
