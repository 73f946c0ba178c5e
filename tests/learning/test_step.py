# SPDX-License-Identifier: MIT
"""The update step alone: what RLlib's learner does with it, and that it needs no Ray."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn import dqn_learner
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER

from rllib_per.learning import update_metrics
from rllib_per.learning.step import NetworkPair, UpdateStep
from rllib_per.learning.target_network import TargetClock, TargetNetworks
from rllib_per.learning.transfer import make_transfer
from rllib_per.objectives import Expected, ObjectiveSettings, Outputs
from tests.support.learner import build_learner, random_batch

ROOT = Path(__file__).parents[2]


def test_rllibs_learner_takes_this_step():
    learner = build_learner(target_network_update_freq=8, grad_clip=0.5)
    net = learner.module["default_policy"].unwrapped()
    online, target = copy.deepcopy(net.q_network), copy.deepcopy(net.target_q_network)
    step = UpdateStep(
        NetworkPair(online, target, torch.device("cpu")),
        Expected(ObjectiveSettings()),
        torch.optim.Adam(online.parameters(), lr=1e-3, fused=True),
        TargetNetworks([(online, target)]),
        TargetClock(8, "env_steps"),
        make_transfer(torch.device("cpu")),
        grad_clip=0.5,
    )
    for seed in range(10):
        batch, counts = random_batch(seed), {"env_steps": 3 * seed, "episodes": 0}
        one = step(batch, counts)
        other = learner.update_from_replay(batch, timesteps=counts)
        np.testing.assert_array_equal(one.td_errors, other.td_errors)
    for mine, theirs in ((online, net.q_network), (target, net.target_q_network)):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_mixed_precision_computes_in_bfloat16_and_hands_out_float32(mixed_precision):
    seen = []

    def network(obs, mask, taus):
        seen.append((obs @ obs.T).dtype)
        return Outputs(obs @ obs.T)

    networks = NetworkPair(network, network, torch.device("cpu"), mixed_precision=mixed_precision)
    for values in (networks.online, networks.target):
        q = values(torch.ones(2, 3)).q
        assert q.dtype == torch.float32
        assert torch.equal(q, torch.full((2, 2), 3.0))
    assert seen == [torch.bfloat16 if mixed_precision else torch.float32] * 2


WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # An import of it fails.
import copy, numpy as np, torch
from types import SimpleNamespace
from rllib_per.learning.encoders import make_encoder
from rllib_per.learning.networks import NetworkConfig, QNetwork
from rllib_per.learning.step import NetworkPair, UpdateStep
from rllib_per.learning.target_network import TargetClock, TargetNetworks
from rllib_per.learning.transfer import make_transfer
from rllib_per.objectives import Expected, ObjectiveSettings
from rllib_per.replay import TransitionBatch
from rllib_per.replay.leaves import ObservationTree
objective, device = Expected(ObjectiveSettings()), torch.device("cpu")
space = SimpleNamespace(shape=(4,), dtype=np.dtype(np.float32))
config = NetworkConfig("mlp", (8,), (8,))
encoder = make_encoder(ObservationTree(space), {"": config})
online = QNetwork(config, encoder, 2, objective)
target = copy.deepcopy(online)
step = UpdateStep(
    NetworkPair(online, target, device), objective,
    torch.optim.Adam(online.parameters()), TargetNetworks([(online, target)]),
    TargetClock(1, "updates"), make_transfer(device),
)
obs = np.ones((3, 4), np.float32)
ones = np.ones(3, np.float32)
batch = TransitionBatch(obs, np.zeros(3, np.int64), ones, obs, ones, ones, np.arange(3))
assert step(batch, {"updates": 1}).ids.tolist() == [0, 1, 2]
"""


def test_the_step_needs_no_ray():
    program = [sys.executable, "-c", WITHOUT_RAY]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["QF_LOSS", "QF_MEAN", "QF_MAX", "QF_MIN", "TD_ERROR_MEAN"])
def test_metrics_have_rllibs_names(name):
    assert getattr(update_metrics, f"{name}_KEY") == getattr(dqn_learner, f"{name}_KEY")


def test_the_gradients_norm_has_the_name_of_rllibs_optimizer():
    assert f"gradients_{DEFAULT_OPTIMIZER}_global_norm" == update_metrics.GRADIENTS_NORM_KEY
