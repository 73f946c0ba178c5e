# SPDX-License-Identifier: MIT
"""With how many threads PyTorch computes a network's gradients fastest."""

from __future__ import annotations

import torch
from torch import nn

from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.learning.encoders import looks_like_image
from rllib_per.replay.leaves import ObservationTree

# From here on a second thread is worth what it costs: multiplications of a batch in dense layers,
# and an image's side. CartPole's and MinAtar's networks are below, screens above (decision 0046).
_MANY_MULTIPLICATIONS = 50_000_000
_LARGE_SIDE = 36

_OWN_CHOICE = torch.get_num_threads()


def set_torch_threads(experiment: ExperimentConfig, policy: GreedyPolicy) -> None:
    """As `learners.num_torch_threads` says; by default what is fastest for the policy's network."""
    torch.set_num_threads(num_threads(experiment, policy))


def num_threads(experiment: ExperimentConfig, policy: GreedyPolicy) -> int:
    """1 for small networks, whose layers are done before a second thread has begun."""
    if experiment.learners.num_torch_threads is not None:
        return experiment.learners.num_torch_threads
    module: nn.Module = policy.module
    dense = sum(p.numel() for layer in module.modules() if isinstance(layer, nn.Linear)
                for p in layer.parameters())  # fmt: skip
    batch = experiment.training.train_batch_size_per_learner
    leaves = ObservationTree(policy.module.observation_space).leaves
    is_screen = any(
        looks_like_image(leaf) and sorted(leaf.shape)[-2] >= _LARGE_SIDE for leaf in leaves
    )
    return _OWN_CHOICE if is_screen or batch * dense >= _MANY_MULTIPLICATIONS else 1
