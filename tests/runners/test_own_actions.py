# SPDX-License-Identifier: MIT
"""A module that chooses actions by itself is asked for them, as by RLlib's env runner."""

import logging
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.models.torch.torch_distributions import TorchCategorical

from rllib_per import ApexDQNConfig
from rllib_per.dqn.reconfiguration import can_change
from rllib_per.learning.module import ApexDQNModule
from rllib_per.own_forwards import has_own_forward
from rllib_per.runners.env_runner import ApexEnvRunner

NUM_ENVS = 3


class Counting(gym.Env):
    """Observes (t, t), and keeps the actions of all."""

    observation_space = gym.spaces.Box(0, 100, (2,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, config=None):
        self.actions = []

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.full(2, self.t, np.float32), {}

    def step(self, action):
        self.t += 1
        self.actions.append(int(action))
        return np.full(2, self.t, np.float32), 1.0, self.t == 10, False, {}


class ByTime(ApexDQNModule):
    """Explores with action t mod 3, and is greedy with action 3."""

    times = ()

    def _forward_exploration(self, batch, t=0, **kwargs):
        type(self).times += (t,)
        assert not self.training
        return {"actions": (batch["obs"][:, 0] % 3).long()}

    def _forward_inference(self, batch, **kwargs):
        return {"actions": torch.full((len(batch["obs"]),), 3)}


class ByDistribution(ApexDQNModule):
    """Logits that put all mass on action 2 where it explores, most of it elsewhere on action 1."""

    def _forward_exploration(self, batch, **kwargs):
        return {"action_dist_inputs": torch.tensor([-1e9, -1e9, 0.0, -1e9]).expand(NUM_ENVS, 4)}

    def _forward_inference(self, batch, **kwargs):
        return {"action_dist_inputs": torch.tensor([0.0, 0.1, 0.0, 0.0]).expand(NUM_ENVS, 4)}

    def get_exploration_action_dist_cls(self):
        return TorchCategorical

    get_inference_action_dist_cls = get_exploration_action_dist_cls


def config(module_class, **replay):
    config = ApexDQNConfig().environment(Counting).debugging(seed=1)
    config.env_runners(num_envs_per_env_runner=NUM_ENVS)
    config.training(replay_buffer_config={"type": "prioritized", "capacity": 100, **replay})
    return config.rl_module(
        rl_module_spec=RLModuleSpec(
            module_class=module_class, model_config={"encoder_hiddens": [8], "hiddens": [8]}
        )
    )


def make_runner(module_class, **replay):
    return ApexEnvRunner(config=config(module_class, **replay), worker_index=0, num_workers=0)


def test_exploration_chooses_what_is_collected():
    ByTime.times = ()
    runner = make_runner(ByTime)
    fragment = runner.collect(8, epsilon=1.0)
    assert fragment.actions[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert (fragment.actions == fragment.actions[:, :1]).all()
    assert runner.env.unwrapped.envs[0].unwrapped.actions == fragment.actions[:, 0].tolist()
    assert ByTime.times == tuple(range(0, 8 * NUM_ENVS, NUM_ENVS))
    runner.collect(2, epsilon=1.0)
    assert ByTime.times[8] == 8 * NUM_ENVS


def test_random_actions_ask_no_module():
    ByTime.times = ()
    fragment = make_runner(ByTime).collect(200, epsilon=0.0, random_actions=True)
    assert ByTime.times == ()
    assert set(np.unique(fragment.actions)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("explore", "played"), [(False, {3}), (True, {0, 1, 2}), (None, {0, 1, 2})]
)
def test_sampling_asks_exploration_or_inference(explore, played):
    runner = make_runner(ByTime)
    runner.sample(num_episodes=3, explore=explore)
    assert set(runner.env.unwrapped.envs[0].unwrapped.actions) == played


def test_without_exploring_inference_collects():
    settings = config(ByTime).env_runners(explore=False)
    runner = ApexEnvRunner(config=settings, worker_index=0, num_workers=0)
    assert (runner.collect(4, epsilon=0.5).actions == 3).all()


def test_a_distribution_is_sampled_to_explore_and_greedy_otherwise():
    runner = make_runner(ByDistribution)
    assert (runner.collect(20, epsilon=0.0).actions == 2).all()
    runner.sample(num_timesteps=30, explore=False)
    assert set(runner.env.unwrapped.envs[0].unwrapped.actions[-10:]) == {1}


def test_q_values_are_recorded_beside_a_modules_own_actions():
    fragment = make_runner(ByTime, initial_priority="td_error").collect(6, epsilon=0.0)
    assert fragment.q_max.shape == (7, NUM_ENVS)
    assert (fragment.q_taken <= fragment.q_max[:6]).all()


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ({"actions": torch.zeros(NUM_ENVS, 1, dtype=torch.long)}, r"one integer per environment"),
        ({"actions": torch.zeros(NUM_ENVS)}, r"one integer per environment.*torch.float32"),
        ({"actions": torch.full((NUM_ENVS,), 4)}, r"actions from 0 to 3: got \[4, 4, 4\]"),
        ({"action": torch.zeros(NUM_ENVS)}, r"must give 'actions' or 'action_dist_inputs'"),
        ({"actions_for_env": None, "actions": torch.zeros(3)}, "env_runner_cls=SingleAgentEnvRun"),
    ],
)
def test_wrong_actions_are_named(output, complaint):
    class Wrong(ApexDQNModule):
        def _forward_exploration(self, batch, **kwargs):
            return output

    with pytest.raises(ValueError, match=rf"Wrong\._forward_exploration.*{complaint}"):
        make_runner(Wrong).collect(1, epsilon=0.0)


def test_the_slower_path_is_said_once_and_the_fast_one_nothing(caplog):
    with caplog.at_level(logging.WARNING, "rllib_per"):
        make_runner(ApexDQNModule)
        assert not caplog.records
        make_runner(ByTime)
    (record,) = caplog.records
    assert "ByTime chooses actions by its own _forward_exploration and _forward" in record.message


def test_which_classes_act_by_themselves():
    class OnlyForward(TorchRLModule):
        def _forward(self, batch, **kwargs):
            return {}

    class Derived(DefaultDQNTorchRLModule):
        pass

    for name in ("exploration", "inference"):
        assert has_own_forward(ByTime, name)
        assert has_own_forward(OnlyForward, name)
        for kind in (ApexDQNModule, Derived, TorchRLModule):
            assert not has_own_forward(kind, name)
    assert not has_own_forward(ByTime, "train")


def test_a_ladder_of_epsilons_and_an_exploration_of_ones_own_exclude_each_other():
    with pytest.raises(ValueError, match="`per_env_epsilon` has no effect on ByTime"):
        config(ByTime).env_runners(per_env_epsilon=True).validate()


class OwnTraining(ApexDQNModule):
    def _forward_train(self, batch, **kwargs):
        return super()._forward_train(batch, **kwargs)


@pytest.mark.parametrize("name", ["mixed_precision", "compile_module"])
def test_what_training_does_by_itself_is_done_as_it_is_written(name):
    with pytest.raises(ValueError, match=f"`{name}` has no effect on OwnTraining, whose passes"):
        config(OwnTraining).learners(**{name: True}).validate()
    config(ApexDQNModule).learners(**{name: True}).validate()


@pytest.mark.parametrize(("kind", "can_be"), [(ByTime, False), (ApexDQNModule, True)])
def test_a_module_that_explores_by_itself_gets_a_new_epsilon_by_beginning_anew(kind, can_be):
    given = config(kind)
    algorithm = SimpleNamespace(
        config=given,
        settings=given.settings(),
        replay=None,
    )
    assert can_change({"epsilon"}, algorithm) == can_be
    assert can_change({"lr"}, algorithm)


class Odd(gym.Env):
    """After an even step, only even actions are legal; after an odd one, only odd ones."""

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, config=None):
        self.played = np.zeros((2, 4), np.int64)

    def _legal(self):
        return (np.arange(4) % 2 == self.t % 2).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._legal(), {}

    def step(self, action):
        self.played[self.t % 2, action] += 1
        self.t += 1
        return self._legal(), 1.0, self.t == 10, False, {}


class MaskedApex(ApexDQNModule):
    """Observations are the masks of legal actions."""

    def compute_q_values(self, batch):
        q_values = super().compute_q_values(batch)["qf_preds"]
        return {"qf_preds": q_values.masked_fill(batch["obs"] == 0, -torch.inf)}


class MaskedRLlib(DefaultDQNTorchRLModule):
    """The same of RLlib's module."""

    def _qf_forward_helper(self, batch, encoder, head):
        q_values = super()._qf_forward_helper(batch, encoder, head)["qf_preds"]
        return {"qf_preds": q_values.masked_fill(batch["obs"] == 0, -torch.inf)}


@pytest.mark.parametrize("initial_priority", ["max", "td_error"])
@pytest.mark.parametrize("epsilon", [0.0, 1.0])
@pytest.mark.parametrize("kind", [MaskedApex, MaskedRLlib])
def test_no_action_has_a_q_value_of_minus_infinity(kind, epsilon, initial_priority):
    settings = config(kind, initial_priority=initial_priority).environment(Odd)
    spec = RLModuleSpec(module_class=kind, model_config={"fcnet_hiddens": [8]})
    settings.rl_module(rl_module_spec=spec)
    runner = ApexEnvRunner(config=settings, worker_index=0, num_workers=0)
    runner.collect(200, epsilon=epsilon)
    played = sum(env.unwrapped.played for env in runner.env.unwrapped.envs)
    assert played[0, 1::2].sum() == played[1, ::2].sum() == 0
    if epsilon == 1.0:  # Uniform among the legal ones: of n draws n/2 within 5 σ, 6e-7 each.
        for legal in (played[0, ::2], played[1, 1::2]):
            assert abs(legal[0] - legal.sum() / 2) < 5 * np.sqrt(legal.sum()) / 2


def test_our_module_explores_among_the_legal_actions_with_rllibs_runner():
    module = MaskedApex(
        observation_space=Odd.observation_space,
        action_space=Odd.action_space,
        model_config={"hiddens": [8], "epsilon": 1.0},
    )
    obs = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).repeat(200, 1)
    actions = module.forward_exploration({"obs": obs}, t=0)["actions"]
    assert set(actions.tolist()) == {1, 3}
    assert module.forward_inference({"obs": obs[:1]})["actions"].item() in (1, 3)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"observation_space": gym.spaces.Box(0, 1, (3,))}, r"observation_space=\)` must be"),
        ({"action_space": gym.spaces.Discrete(3)}, r"action_space=\)` must be"),
    ],
)
def test_spaces_that_are_not_the_environments_are_refused(given, complaint):
    settings = config(ApexDQNModule).environment(Odd, **given)
    with pytest.raises(ValueError, match=complaint):
        ApexEnvRunner(config=settings, worker_index=0, num_workers=0)


def test_a_module_with_other_actions_than_the_environment_is_refused():
    spec = RLModuleSpec(action_space=gym.spaces.Discrete(5))
    settings = config(ApexDQNModule).environment(Odd).rl_module(rl_module_spec=spec)
    with pytest.raises(ValueError, match=r"action space must be the environment's, Discrete\(4\)"):
        ApexEnvRunner(config=settings, worker_index=0, num_workers=0)


def test_spaces_of_the_environment_may_be_given_with_other_bounds():
    box = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    settings = config(ApexDQNModule).environment(Odd, observation_space=box)
    ApexEnvRunner(config=settings, worker_index=0, num_workers=0).stop()
