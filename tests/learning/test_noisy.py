# SPDX-License-Identifier: MIT
"""Noisy networks through learner, module and env runner."""

import copy
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_per import ApexDQNConfig
from rllib_per.experiments.exporting import ExportedPolicy
from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.learning.module import ApexDQNModule
from rllib_per.objectives import Expected
from rllib_per.objectives.noise import NoisyLinear, noisy_layers
from rllib_per.runners.collector import Collector
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.learner import (
    START,
    build_from,
    build_learner,
    learner_config,
    net,
    parameters,
    random_batch,
)


def learn(learner, seeds):
    return [
        learner.update_from_replay(random_batch(seed), timesteps=START).td_errors for seed in seeds
    ]


def noisy_learner(**settings):
    return build_learner(noisy=True, **settings)


# -- the learner -----------------------------------------------------------------------------


@pytest.mark.parametrize("dueling", [True, False])
def test_sigma_is_learned_and_followed_by_the_target(dueling):
    learner = noisy_learner(
        dueling=dueling, sigma0=0.8, target_network_update_freq=3,
        target_network_update_unit="updates",
    )  # fmt: skip
    layers = noisy_layers(net(learner).q_network)
    assert len(layers) == (4 if dueling else 2)
    before = copy.deepcopy(layers)
    assert before[0].sigma_weight[0, 0].item() == pytest.approx(0.8 / 16**0.5)
    learn(learner, range(3))
    targets = noisy_layers(net(learner).target_q_network)
    for layer, old, target in zip(layers, before, targets, strict=True):
        assert not torch.equal(layer.sigma_weight, old.sigma_weight)
        assert torch.equal(layer.sigma_weight, target.sigma_weight)
        assert torch.equal(layer.sigma_bias, target.sigma_bias)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_atoms": 11},
        {"distribution": {"type": "quantile", "num_quantiles": 5}},
        {"distribution": {"type": "implicit_quantile"}},
        {"munchausen": {}, "dueling": False},
    ],
    ids=str,
)
def test_every_head_explores_with_noise_learns_it_and_plays_without(settings):
    learner = noisy_learner(**settings)
    module = net(learner)
    layers = noisy_layers(module.q_network)
    before = copy.deepcopy(layers)
    learn(learner, range(2))
    for layer, old in zip(layers, before, strict=True):
        assert not torch.equal(layer.sigma_weight, old.sigma_weight)
        assert not torch.equal(layer.sigma_bias, old.sigma_bias)
    batch = {"obs": torch.full((6, 4), 0.5)}
    with torch.no_grad():
        greedy = module.compute_q_values(batch)["qf_preds"]
        with module.exploring(6):
            explored = module.compute_q_values(batch)["qf_preds"]
    torch.testing.assert_close(greedy, greedy[:1].expand(6, -1))
    assert len(torch.unique(explored, dim=0)) == 6


def expected_td_errors(network, target, batch, noises):
    """Double Q-learning by three passes with the given noise: target, choosing, online."""

    def q_values(network, obs, given):
        for layer, part in zip(noisy_layers(network), given, strict=True):
            layer.noise = part
        with torch.no_grad():
            q = network(torch.from_numpy(obs)).q.numpy()
        for layer in noisy_layers(network):
            layer.noise = None
        return q

    rows = np.arange(len(batch))
    next_q = q_values(target, batch.next_obs, noises[0])
    chosen = q_values(network, batch.next_obs, noises[1]).argmax(axis=1)
    taken = q_values(network, batch.obs, noises[2])[rows, batch.actions]
    return batch.n_step_returns + batch.bootstrap_discounts * next_q[rows, chosen] - taken


def test_target_choosing_and_online_pass_have_noise_of_their_own():
    learner, batch = noisy_learner(), random_batch()
    module = net(learner)
    seen = []

    def note(layer, _):
        seen.append(layer.noise)

    layers = [*noisy_layers(module.q_network), *noisy_layers(module.target_q_network)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    twins = copy.deepcopy(module.q_network), copy.deepcopy(module.target_q_network)
    for twin in twins:
        for layer in noisy_layers(twin):
            layer._forward_pre_hooks.clear()
    update = learner.update_from_replay(batch, timesteps=START)
    for hook in hooks:
        hook.remove()
    # Streams come in the order of calls, value first; modules list advantage first.
    noises = [[*seen[i + 2 : i + 4], *seen[i : i + 2]] for i in (0, 4, 8)]
    firsts = [given[0][0] for given in noises]
    assert not any(torch.equal(firsts[i], firsts[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    expected = expected_td_errors(*twins, batch, noises)
    np.testing.assert_allclose(update.td_errors, expected, rtol=1e-4, atol=1e-5)


def test_noise_differs_from_update_to_update_and_by_seed():
    learner = noisy_learner(lr=0.0)
    first, second = (learner.update_from_replay(random_batch(), timesteps=START) for _ in range(2))
    assert not np.array_equal(first.td_errors, second.td_errors)
    other = noisy_learner(lr=0.0)
    other._step._networks._noise._seed += 1
    third = other.update_from_replay(random_batch(), timesteps=START)
    assert not np.array_equal(first.td_errors, third.td_errors)


def test_a_restored_learner_goes_on_exactly():
    first, second = noisy_learner(), noisy_learner()
    learn(first, range(5))
    second.set_state(first.get_state())
    one, other = learn(first, range(5, 9)), learn(second, range(5, 9))
    np.testing.assert_array_equal(one, other)
    assert torch.equal(parameters(first), parameters(second))


def test_bfloat16_changes_the_step_by_rounding_only():
    plain, other = noisy_learner(), noisy_learner(mixed_precision=True)
    exact, rounded = np.array(learn(plain, range(5))), np.array(learn(other, range(5)))
    # Numbers of bfloat16 have eight bits, so that each is off by at most 0.4 %.
    np.testing.assert_allclose(exact, rounded, rtol=0, atol=0.01 * np.abs(exact).max())
    assert not np.array_equal(exact, rounded)


def test_a_compiled_network_takes_the_same_steps_and_is_compiled_once(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, other = noisy_learner(), noisy_learner(compile_module=True)
    one, two = learn(plain, range(2)), learn(other, range(2))
    counters = torch._dynamo.utils.counters["stats"]
    num_graphs = counters["unique_graphs"]
    one, two = one + learn(plain, range(2, 4)), two + learn(other, range(2, 4))
    assert num_graphs > 0
    assert counters["unique_graphs"] == num_graphs
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


class OwnLoss(ApexDQNLearner):
    """Goes by what `forward_train` gives, as a loss of RLlib's does."""

    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        self.seen = fwd_out
        return super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )


def test_a_hook_that_changes_nothing_changes_no_noise():
    plain = build_learner(noisy=True, distribution="implicit_quantile")
    other = build_from(
        learner_config(noisy=True, distribution="implicit_quantile", _learner_class=OwnLoss)
    )
    np.testing.assert_array_equal(learn(plain, range(3)), learn(other, range(3)))


def test_rllibs_way_through_a_hook_is_noisy_too():
    settings = {"noisy": True, "lr": 0.0, "_learner_class": OwnLoss}
    one, other = (build_from(learner_config(**settings)) for _ in range(2))
    batch = random_batch()
    with torch.no_grad():
        greedy = net(one).compute_q_values({"obs": torch.from_numpy(batch.obs)})["qf_preds"]
    q_values = []
    for _ in range(2):
        for learner in (one, other):
            learner.update_from_replay(batch, timesteps=START)
            q_values.append(learner.seen["qf_preds"])
    assert torch.equal(q_values[0], q_values[1])
    assert torch.equal(q_values[2], q_values[3])
    assert not torch.allclose(q_values[0], q_values[2])
    assert not torch.allclose(q_values[0], greedy)


# -- acting ----------------------------------------------------------------------------------


class Still(gym.Env):
    """Shows the same for ever."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(5)

    def __init__(self, config=None):
        pass

    def reset(self, *, seed=None, options=None):
        return np.full(4, 0.5, np.float32), {}

    def step(self, action):
        return np.full(4, 0.5, np.float32), 0.0, False, False, {}


def runner_and_learner(**settings):
    """A runner that plays with the learner's module."""
    config = learner_config(noisy=True, sigma0=4.0, **settings).environment(Still)
    config.env_runners(num_envs_per_env_runner=6)
    config.training(replay_buffer_config={"initial_priority": "td_error"})
    runner = ApexEnvRunner(config=config, worker_index=0)
    learner = config.build_learner(spaces=runner.get_spaces())
    learner.build()
    runner.share_module(learner.module["default_policy"])
    return runner, learner


def test_every_step_of_every_environment_has_noise_of_its_own():
    runner, learner = runner_and_learner()
    fragment = runner.collect(20, epsilon=0.0)
    assert len(np.unique(fragment.q_max)) == fragment.q_max.size
    assert len(np.unique(fragment.actions)) > 2
    assert all(layer.noise is None for layer in noisy_layers(net(learner)))


def test_greedy_play_has_no_noise():
    runner, learner = runner_and_learner(explore=False)
    fragment = runner.collect(5, epsilon=0.0)
    obs = torch.full((1, 4), 0.5)
    with torch.no_grad():
        q_values = net(learner).compute_q_values({"obs": obs})["qf_preds"]
        policy = ExportedPolicy(net(learner))
        exported, action = torch.export.export(policy, (obs,)).module()(obs)
    np.testing.assert_allclose(fragment.q_max, q_values.max().item(), rtol=1e-5)
    assert (fragment.actions == q_values.argmax().item()).all()
    torch.testing.assert_close(exported, q_values)
    assert action == q_values.argmax()


def test_sampling_is_noisy_where_it_explores(monkeypatch):
    runner, _ = runner_and_learner(epsilon=0.0)
    collector, seen = runner._collector, []
    plain = collector._q_values
    monkeypatch.setattr(collector, "_q_values", lambda: seen.append(plain()) or seen[-1])
    for explore, varies in ((True, True), (False, False), (None, True)):
        seen.clear()
        runner.sample(num_timesteps=12, explore=explore)
        rows = np.concatenate(seen)
        assert (len(np.unique(rows.round(5), axis=0)) > 1) == varies


def test_acting_changes_nothing_for_the_learner():
    runner, learner = runner_and_learner()
    twin = runner_and_learner()[1]
    random_state = torch.get_rng_state()
    learn(learner, range(2)), learn(twin, range(2))
    for seed in range(2, 5):
        runner.collect(3, epsilon=0.0)
        runner.sample(num_timesteps=6, explore=True)
        np.testing.assert_array_equal(learn(learner, [seed]), learn(twin, [seed]))
    assert torch.equal(parameters(learner), parameters(twin))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_restored_runner_draws_the_same_noise():
    first, *others = (runner_and_learner()[0] for _ in range(3))
    first.collect(7, epsilon=0.3)
    for runner in others:
        runner.set_state(first.get_state())
    one, other = (runner.collect(7, epsilon=0.3) for runner in others)
    np.testing.assert_array_equal(one.q_max, other.q_max)
    np.testing.assert_array_equal(one.actions, other.actions)


def test_rllibs_runner_explores_with_noise_and_plays_without():
    _, learner = runner_and_learner(epsilon=0.0)
    module, batch = net(learner), {"obs": torch.full((40, 4), 0.5)}
    explored = module.forward_exploration(batch, t=0)["actions"]
    assert len(torch.unique(explored)) > 1
    played = module.forward_inference(batch)["actions"]
    assert len(torch.unique(played)) == 1


# -- what is refused -------------------------------------------------------------------------


class OwnExploration(ApexDQNModule):
    def _forward_exploration(self, batch, t=0, **kwargs):
        return self._forward_inference(batch)


class OwnTraining(ApexDQNModule):
    def _forward_train(self, batch, **kwargs):
        return super()._forward_train(batch)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (OwnExploration, r"OwnExploration\._forward_exploration.*set noisy=False"),
        (OwnTraining, r"OwnTraining\._forward_train.*set noisy=False"),
    ],
)
def test_passes_of_a_modules_own_would_be_without_noise(kind, match):
    config = ApexDQNConfig().environment("CartPole-v1").training(noisy=True)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=kind))
    with pytest.raises(ValueError, match=match):
        config.validate()


def test_another_module_than_ours_has_no_noise():
    from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule

    config = ApexDQNConfig().environment("CartPole-v1").training(noisy=True)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultDQNTorchRLModule))
    with pytest.raises(ValueError, match="DefaultDQNTorchRLModule, which is no ApexDQNModule"):
        config.validate()


class PlainHead(Expected):
    def head(self, num_features, num_actions, streams):
        return torch.nn.Linear(num_features, num_actions)


def test_a_head_of_ones_own_must_have_noisy_layers():
    with pytest.raises(ValueError, match="`noisy` has no effect on the head of PlainHead"):
        noisy_learner(objective=PlainHead)


def test_the_encoder_has_no_noise():
    encoder = net(noisy_learner()).q_network.encoder
    assert not any(isinstance(layer, NoisyLinear) for layer in encoder.modules())


class FailsOnce(gym.Env):
    """Raises in its fifth step, and never again."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        type(self).num_steps += 1
        self.t += 1
        if self.num_steps == 5:
            raise RuntimeError("an accident")
        return np.zeros(2, np.float32), 0.0, self.t >= 10, False, {}


def test_sampling_is_noisy_after_an_environment_was_made_anew(monkeypatch):
    config = ApexDQNConfig().environment(FailsOnce).training(noisy=True, epsilon=0.0)
    config.fault_tolerance(restart_failed_sub_environments=True)
    runner = ApexEnvRunner(config=config)
    are_noisy = []
    plain = Collector.play_row

    def play_row(collector, *args):
        are_noisy.append(collector.is_noisy)
        return plain(collector, *args)

    monkeypatch.setattr(Collector, "play_row", play_row)
    runner.sample(num_episodes=1, explore=True)
    assert are_noisy == [True] * 15
