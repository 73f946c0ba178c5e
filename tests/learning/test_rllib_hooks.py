# SPDX-License-Identifier: MIT
"""A learner's overridden hooks are called by the update from replay, and only those."""

import functools
import operator

import numpy as np
import pytest
import torch
import tree
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_per import ApexDQNConfig
from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.rllib_hooks import HOOKS_OF_A_STEP, HookedStep, joined
from rllib_per.learning.step import UpdateStep
from tests.support.learner import build_from, build_learner, learner_config, net, random_batch

AROUND = ["before_gradient_based_update", "after_gradient_based_update"]
SETTINGS = {"grad_clip": 0.1, "target_network_update_freq": 8, "lr": 1e-3}


def counting(*names, base=ApexDQNLearner):
    """A learner class that overrides `names`, counts their calls, and does nothing else."""
    calls = dict.fromkeys(names, 0)

    def override(name):
        def method(self, *args, **kwargs):
            calls[name] += 1
            return getattr(super(kind, self), name)(*args, **kwargs)

        return method

    kind = type("Counting", (base,), {name: override(name) for name in names} | {"calls": calls})
    return kind


def build(kind, **settings):
    return build_learner(_learner_class=kind, **(SETTINGS | settings))


def tensors(learner):
    return torch.cat([p.detach().reshape(-1) for p in net(learner).parameters()])


def train(learner, num_updates=12):
    for seed in range(num_updates):
        learner.update_from_replay(
            random_batch(seed), timesteps={"env_steps": 4 * seed, "episodes": seed}, lr=1e-3
        )
    return tensors(learner)


def test_without_overrides_the_step_is_the_lean_one():
    assert type(build(None)._step) is UpdateStep
    assert type(build(DQNTorchLearner)._step) is UpdateStep


@pytest.mark.parametrize("name", [*sorted(HOOKS_OF_A_STEP), *AROUND, "everything"])
def test_an_overridden_hook_is_called_and_the_update_is_the_same(name):
    names = [*sorted(HOOKS_OF_A_STEP), *AROUND] if name == "everything" else [name]
    kind = counting(*names)
    learner = build(kind)
    torch.testing.assert_close(train(learner), train(build(None)))
    for hook in names:
        # RLlib's own default filters once for all gradients and once to clip them.
        expected = {"configure": 1, "filter_pa": 24}.get(hook[:9], 12)
        assert kind.calls[hook] == expected, hook
    assert isinstance(learner._step, HookedStep) == (name not in AROUND)


def test_metrics_of_a_step_with_hooks_are_those_of_the_lean_one():
    hooked, lean = build(counting("compute_loss_for_module", "apply_gradients")), build(None)
    for learner in (hooked, lean):
        train(learner)
    theirs, ours = (learner.pop_metrics()["default_policy"] for learner in (hooked, lean))
    assert theirs.keys() == ours.keys()
    assert theirs["dormant_share"].keys() == ours["dormant_share"].keys()
    for path, value in tree.flatten_with_path(ours):
        other = functools.reduce(operator.getitem, path, theirs)
        assert other.peek() == pytest.approx(value.peek(), rel=1e-4), path


def test_a_loss_of_ones_own_is_what_is_learned():
    class Decayed(ApexDQNLearner):
        def compute_loss_for_module(self, *, module_id, **kwargs):
            loss = super().compute_loss_for_module(module_id=module_id, **kwargs)
            weights = self.module[module_id].unwrapped().q_network.parameters()
            return loss + 100 * sum((w**2).sum() for w in weights)

    lean, decayed = build(None), build(Decayed)
    assert train(decayed, 300).abs().mean() < 0.5 * train(lean, 300).abs().mean()


def test_rewards_may_be_changed_in_the_batch():
    class Shifted(ApexDQNLearner):
        def compute_loss_for_module(self, *, batch, **kwargs):
            return super().compute_loss_for_module(
                batch={**batch, "rewards": batch["rewards"] + 5.0}, **kwargs
            )

    batch, start = random_batch(), {"env_steps": 0, "episodes": 0}
    shifted = build(Shifted).update_from_replay(batch, timesteps=start).td_errors
    plain = build(None).update_from_replay(batch, timesteps=start).td_errors
    torch.testing.assert_close(torch.tensor(shifted - plain), torch.full((len(plain),), 5.0))


def test_gradients_that_a_hook_changes_are_applied():
    class Frozen(ApexDQNLearner):
        def postprocess_gradients_for_module(self, *, module_gradients_dict, **kwargs):
            return {p: torch.zeros_like(g) for p, g in module_gradients_dict.items()}

    frozen = build(Frozen)
    before = [p.detach().clone() for p in net(frozen).q_network.parameters()]
    train(frozen)
    for was, parameter in zip(before, net(frozen).q_network.parameters(), strict=True):
        assert torch.equal(was, parameter)


def test_optimizers_of_ones_own_keep_their_learning_rates_and_follow_their_schedules():
    class Two(ApexDQNLearner):
        def configure_optimizers_for_module(self, module_id, config=None):
            network = self.module[module_id].q_network
            for name, part, lr in (
                ("encoder", network.encoder, 0.25),
                ("head", network.head, [[0, 0.5], [40, 0.1]]),
            ):
                parameters = list(part.parameters())
                optimizer = torch.optim.SGD(parameters, lr=0.25)
                self.register_optimizer(
                    module_id=module_id,
                    optimizer_name=name,
                    optimizer=optimizer,
                    params=parameters,
                    lr_or_lr_schedule=None if name == "encoder" else lr,
                )

    learner = build(Two)
    before = tensors(learner)
    assert (train(learner) != before).float().mean() > 0.9
    metrics = learner.pop_metrics()["default_policy"]
    assert metrics["encoder_learning_rate"].peek() == 0.25
    assert metrics["head_learning_rate"].peek() == pytest.approx(0.5 - 0.4 * 44 / 40, abs=0.05)
    learner.set_state(learner.get_state())


@pytest.mark.parametrize("base", [DQNTorchLearner, TorchLearner])
def test_a_learner_written_for_rllibs_dqn_is_called(base):
    names = ("compute_loss_for_module",) if base is DQNTorchLearner else ("compute_gradients",)
    kind = counting(*names, base=base)
    config = learner_config(**SETTINGS).learners(learner_class=kind)
    config.environment("CartPole-v1").validate()
    learner = build_from(config)
    assert type(learner).__name__ == "Counting"
    assert type(learner).__mro__[1:3] == (kind, ApexDQNLearner)
    torch.testing.assert_close(train(learner), train(build(None)))
    assert kind.calls == dict.fromkeys(names, 12)


def test_a_loss_without_super_gives_replay_the_td_errors_that_it_logs():
    class Own(DQNTorchLearner):
        def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
            q_values = fwd_out["qf_preds"].gather(1, batch["actions"][:, None])[:, 0]
            td_error = (q_values - batch["rewards"]).abs()
            self.metrics.log_value((module_id, "td_error"), td_error, reduce="item_series")
            return (batch["weights"] * td_error**2).mean()

    class Silent(DQNTorchLearner):
        def compute_loss_for_module(self, *, fwd_out, **kwargs):
            return fwd_out["qf_preds"].mean()

    batch, start = random_batch(), {"env_steps": 0, "episodes": 0}
    learner = build(Own)
    with torch.no_grad():
        q_values = net(learner).q_network(torch.from_numpy(batch.obs)).q.numpy()
    expected = abs(q_values[range(8), batch.actions] - batch.n_step_returns)
    first = learner.update_from_replay(batch, timesteps=start)
    assert first.td_errors == pytest.approx(expected, rel=1e-5)
    assert learner.update_from_replay(batch, timesteps=start).td_errors.shape == (8,)
    assert "td_error" not in learner.pop_metrics()["default_policy"]
    with pytest.raises(ValueError, match=r"must call super.*or log the TD errors"):
        build(Silent).update_from_replay(batch, timesteps=start)


def test_a_modules_own_forward_train_is_what_rllibs_loss_is_of():
    class Doubled(ApexDQNModule):
        def _forward_train(self, batch, **kwargs):
            output = super()._forward_train(batch, **kwargs)
            return output | {"qf_preds": 2 * output["qf_preds"]}

    config = learner_config(**SETTINGS)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=Doubled))
    batch, start = random_batch(), {"env_steps": 0, "episodes": 0}
    learner = build_from(config)
    with torch.no_grad():
        output = net(learner).forward_train(
            {"obs": torch.from_numpy(batch.obs), "new_obs": torch.from_numpy(batch.next_obs)}
        )
    chosen = output["qf_preds"].numpy()[range(8), batch.actions]
    best = output["qf_next_preds"].argmax(1)
    next_q = output["qf_target_next_preds"].numpy()[range(8), best]
    expected = abs(batch.n_step_returns + batch.bootstrap_discounts * next_q - chosen)
    update = learner.update_from_replay(batch, timesteps=start)
    assert update.td_errors == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99, 0.999, 1.0])
def test_rllibs_batch_has_the_same_discounts(gamma):
    from rllib_per.learning.rllib_hooks import columns_of_rllib, rllib_columns
    from rllib_per.objectives import TensorBatch

    discounts = torch.tensor([gamma**k for k in range(1, 11)] + [0.0])
    same = torch.zeros(11)
    columns = TensorBatch(same, same.long(), same, same, discounts, same)
    batch = rllib_columns(columns, gamma)
    if 0 < gamma < 1:
        assert batch["n_step"][:-1].tolist() == list(range(1, 11))
    torch.testing.assert_close(columns_of_rllib(batch, gamma).bootstrap_discounts, discounts)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (dict, "must be a class derived from ApexDQNLearner or DQNTorchLearner: got"),
        (PPOTorchLearner, "another algorithm's"),
        (SACTorchLearner, "another algorithm's"),
        (counting("update"), "overrides `update`, which is never called: batches are columns"),
        (counting("should_module_be_updated"), "return no gradients from `compute_gradients`"),
        (counting("update", base=DQNTorchLearner), "overrides `update`, which is never called"),
        (counting("_uncompiled_update"), "override `compute_loss_for_module`"),
        (counting("_log_metrics"), "log in `after_gradient_based_update`"),
    ],
)
def test_a_learner_that_would_be_passed_over_is_refused(kind, complaint):
    config = ApexDQNConfig().environment("CartPole-v1").learners(learner_class=kind)
    with pytest.raises(ValueError, match="`learner_class`") as error:
        config.validate()
    assert complaint in str(error.value)


def test_joined_classes_are_made_once():
    class Mine(DQNTorchLearner):
        pass

    assert joined(Mine, ApexDQNLearner) is joined(Mine, ApexDQNLearner)
    assert joined(TorchLearner, ApexDQNLearner) is ApexDQNLearner


def test_connectors_that_a_learner_adds_to_its_pipeline_are_refused():
    class Curious(DQNTorchLearner):
        def build(self):
            super().build()
            self._learner_connector.prepend(None)

    with pytest.raises(ValueError, match=r"connectors can't be changed.*pass through no connector"):
        build(Curious)


def test_a_stateful_module_is_refused():
    class Remembering(ApexDQNModule):
        def get_initial_state(self):
            return {"h": torch.zeros(3)}

    spec = RLModuleSpec(module_class=Remembering, model_config={"hiddens": [8]})
    with pytest.raises(ValueError, match=r"Remembering is stateful.*no sequences"):
        build(None, _rl_module_spec=spec)


def test_a_loss_that_asks_for_truncations_is_told_that_there_are_none():
    class Asking(DQNTorchLearner):
        def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
            return batch["truncateds"].float().mean()

    with pytest.raises(KeyError, match=r"no 'truncateds'; they have obs, .*`terminateds`"):
        train(build(Asking), 1)


def forbidding(base):
    """Action 0 is illegal where the first number of an observation is positive, or all are."""

    def masked(q_values, obs):
        all_but_one = torch.arange(q_values.shape[1]) > 0
        none_legal = obs[:, 1:2] > 1
        illegal = (obs[:, :1] > 0) & ~all_but_one | none_legal
        return q_values.masked_fill(illegal, -torch.inf)

    class Forbidding(base):
        def compute_q_values(self, batch):
            q_values = super().compute_q_values(batch)["qf_preds"]
            return {"qf_preds": masked(q_values, batch["obs"])}

        def forward_target(self, batch):
            q_values = super().forward_target(batch)["qf_preds"]
            return {"qf_preds": masked(q_values, batch["obs"])}

    return Forbidding


@pytest.mark.parametrize("base", [ApexDQNModule, DefaultDQNTorchRLModule])
def test_a_q_value_of_minus_infinity_is_no_bootstrap(base):
    learner = build(None, _rl_module_spec=RLModuleSpec(module_class=forbidding(base)))
    batch = random_batch(3)
    batch.actions[:] = 1
    batch.obs[:, 1] = 0.0
    batch.next_obs[::2, 1] = 2.0  # Nothing is legal there.
    batch.next_obs[1::2, 1] = 0.0
    update = learner.update_from_replay(batch, timesteps={"env_steps": 1, "episodes": 0})
    assert np.isfinite(update.td_errors).all()
    assert torch.isfinite(tensors(learner)).all()
