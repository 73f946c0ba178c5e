# SPDX-License-Identifier: MIT
"""Masks of legal actions in the network and in the update, against NumPy."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from rllib_per.learning.learner import ApexDQNLearner
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.transfer import CpuTransfer
from rllib_per.replay.fragment import TransitionBatch
from tests.support.learner import NUM_ACTIONS, OBSERVATIONS, START, learner_config

ACTIONS = gym.spaces.Discrete(NUM_ACTIONS)
SPACE = gym.spaces.Dict(
    {"observations": OBSERVATIONS, "action_mask": gym.spaces.MultiBinary(NUM_ACTIONS)}
)


def masked_batch(size=32, seed=0):
    """Every mask with a legal action occurs, the action taken is legal, and some rows terminate.

    Behind a termination nothing is legal.
    """
    rng = np.random.default_rng(seed)
    codes = 1 + np.arange(2 * size).reshape(2, size) % (2**NUM_ACTIONS - 1)
    masks = (codes[..., None] >> np.arange(NUM_ACTIONS) & 1).astype(np.int8)
    discounts = np.where(rng.random(size) < 0.25, 0, 0.9).astype(np.float32)
    masks[1, discounts == 0] = 0
    obs = rng.standard_normal((2, size, 4), dtype=np.float32)
    return TransitionBatch(
        obs={"observations": obs[0], "action_mask": masks[0]},
        actions=np.array([rng.choice(np.flatnonzero(mask)) for mask in masks[0]]),
        n_step_returns=rng.standard_normal(size, dtype=np.float32),
        next_obs={"observations": obs[1], "action_mask": masks[1]},
        bootstrap_discounts=discounts,
        importance_weights=rng.uniform(0.1, 1.0, size).astype(np.float32),
        ids=np.arange(size),
    )


def build(learner_class=None, module_class=None, **settings):
    config = learner_config(**settings)
    if learner_class is not None:
        config.learners(learner_class=learner_class)
    if module_class is not None:
        from ray.rllib.core.rl_module.rl_module import RLModuleSpec

        config.rl_module(rl_module_spec=RLModuleSpec(module_class=module_class))
    learner = config.build_learner(spaces={"default_policy": (SPACE, ACTIONS)})
    learner.build()
    net = learner.module["default_policy"].unwrapped()
    with torch.no_grad():  # So that the networks disagree, and biases are none.
        generator = torch.Generator().manual_seed(5)
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return learner, net


def dueling(network, states):
    """Q in NumPy, from the streams: V + A minus the mean of A over legal actions."""
    obs, mask = states["observations"], states["action_mask"].astype(np.float64)
    with torch.no_grad():
        features = network.encoder({"observations": torch.from_numpy(obs)})
        values = network.head.value(features).double().numpy()
        advantages = network.head.advantage(features).double().numpy()
    mean = (advantages * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    return values + advantages - mean[:, None]


def expected_td_errors(net, batch, double_q):
    rows = np.arange(len(batch))
    q_values = dueling(net.q_network, batch.obs)[rows, batch.actions]
    target = dueling(net.target_q_network, batch.next_obs)
    chooser = dueling(net.q_network, batch.next_obs) if double_q else target
    legal = batch.next_obs["action_mask"].astype(bool)
    best = np.where(legal, chooser, -np.inf).argmax(axis=1)
    return batch.n_step_returns + batch.bootstrap_discounts * target[rows, best] - q_values


class OwnLoss(ApexDQNLearner):
    """Takes RLlib's way through a batch of dictionaries."""

    def compute_loss_for_module(self, **kwargs):
        return super().compute_loss_for_module(**kwargs)


class Passed(ApexDQNModule):
    """One of a user's own, which is asked for Q-values only."""

    def compute_q_values(self, batch):
        assert batch["obs"].keys() == {"observations", "action_mask"}
        return super().compute_q_values(batch)


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize(
    "kinds",
    [{}, {"learner_class": OwnLoss}, {"module_class": Passed}],
    ids=["lean", "RLlib's hooks", "own module"],
)
def test_no_illegal_action_is_bootstrapped_or_averaged(kinds, double_q):
    learner, net = build(**kinds, double_q=double_q)
    batch = masked_batch()
    expected = expected_td_errors(net, batch, double_q)
    update = learner.update_from_replay(batch, timesteps=START)
    np.testing.assert_allclose(update.td_errors, expected, rtol=1e-3, atol=1e-5)
    unmasked = TransitionBatch(
        **vars(batch)
        | {"next_obs": batch.next_obs | {"action_mask": np.ones((32, NUM_ACTIONS), np.int8)}}
    )
    others = expected_td_errors(net, unmasked, double_q)
    assert (np.abs(others - expected) > 1e-2).any()


def test_gradients_are_finite_behind_terminations_without_a_legal_action():
    learner, net = build(log_gradients=True)
    for seed in range(3):
        learner.update_from_replay(masked_batch(seed=seed), timesteps=START)
    assert all(parameter.isfinite().all() for parameter in net.parameters())


def test_rllibs_own_loss_of_the_modules_outputs_takes_the_best_legal_action():
    _, net = build()
    batch = masked_batch()
    columns = {
        "obs": {name: torch.from_numpy(leaf) for name, leaf in batch.obs.items()},
        "new_obs": {name: torch.from_numpy(leaf) for name, leaf in batch.next_obs.items()},
    }
    output = net.forward_train(columns)
    legal = batch.next_obs["action_mask"].astype(bool)
    goes_on = batch.bootstrap_discounts > 0
    for key in ("qf_target_next_preds", "qf_next_preds"):
        best = output[key].argmax(dim=1).numpy()
        assert legal[np.arange(32), best][goes_on].all()
        assert output[key].isfinite().all()


def test_the_mask_is_no_input_of_the_network():
    tensors = CpuTransfer(has_masks=True).load(masked_batch())
    assert tensors.obs.keys() == tensors.next_obs.keys() == {"observations"}
    assert tensors.action_mask.dtype == tensors.next_action_mask.dtype == torch.bool
    assert CpuTransfer().load(masked_batch()).action_mask is None


def make_module(space=SPACE, **model_config):
    torch.manual_seed(0)
    return ApexDQNModule(observation_space=space, action_space=ACTIONS, model_config=model_config)


def states(size=4000):
    rng = np.random.default_rng(2)
    obs = np.repeat(rng.standard_normal((1, 4), dtype=np.float32), size, axis=0)
    mask = np.tile(np.array([1, 0, 1], np.int8), (size, 1))
    return {"observations": torch.from_numpy(obs), "action_mask": torch.from_numpy(mask)}


def test_the_module_explores_uniformly_among_legal_actions():
    module, batch = make_module(epsilon=[(0, 1.0), (1000, 0.0)]), {"obs": states()}
    shares = torch.bincount(module.forward_exploration(batch, t=0)["actions"], minlength=3) / 4000
    # Uniform over 2 actions: 5 standard deviations of a share are 5·sqrt(1/4/4000) = 0.04.
    assert shares[1] == 0
    assert (shares[[0, 2]] - 0.5).abs().max() < 0.04
    greedy = module.forward_inference(batch)["actions"]
    assert torch.equal(module.forward_exploration(batch, t=1000)["actions"], greedy)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.float32])
def test_the_module_acts_greedily_among_legal_actions(dtype):
    module, batch = make_module(), states(8)
    rng = np.random.default_rng(3)
    batch["observations"] = torch.from_numpy(rng.standard_normal((8, 4), dtype=np.float32))
    codes = torch.arange(8)[:, None]
    batch["action_mask"] = (codes >> torch.arange(NUM_ACTIONS) & 1).to(dtype)
    legal = batch["action_mask"].bool()
    actions = module.forward_inference({"obs": batch})["actions"]
    assert legal[torch.arange(8), actions][1:].all()
    q_values = module.compute_q_values({"obs": batch})["qf_preds"]
    assert q_values.isfinite().all()
    best = q_values.masked_fill(~legal, -torch.inf).argmax(dim=1)
    assert torch.equal(actions[1:], best[1:])


def test_a_leaf_of_this_name_is_an_input_where_one_says_so():
    masked, unmasked = make_module(), make_module(action_masks="none")
    inputs = [next(each.q_network.encoder.parameters()).shape for each in (masked, unmasked)]
    num_inputs = [
        sum(p.shape[1] for p in each.q_network.encoder.parameters() if p.ndim == 2)
        for each in (masked, unmasked)
    ]
    assert num_inputs[1] - num_inputs[0] >= NUM_ACTIONS, inputs
    batch = {"obs": states(1)}
    batch["obs"]["action_mask"] = torch.zeros(1, NUM_ACTIONS, dtype=torch.int8)
    assert unmasked.forward_inference(batch)["actions"].shape == (1,)


def test_a_mask_of_another_number_of_actions_is_refused():
    space = gym.spaces.Dict({"x": OBSERVATIONS, "action_mask": gym.spaces.MultiBinary(4)})
    with pytest.raises(ValueError, match=r"one number for each action, as MultiBinary\(3\)"):
        make_module(space)
