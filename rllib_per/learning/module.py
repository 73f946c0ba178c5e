# SPDX-License-Identifier: MIT
"""ApexDQNModule: a dueling Q-network and its target network as an RLlib RLModule."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import (
    QF_NEXT_PREDS,
    QF_PREDS,
    QF_TARGET_NEXT_PREDS,
)
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from rllib_per.learning.initializers import initialize
from rllib_per.learning.network_config import as_mapping, network_config
from rllib_per.learning.networks import QNetwork
from rllib_per.learning.step import Network
from rllib_per.objectives import Objective, Outputs, build_objective
from rllib_per.objectives.objective import Observations
from rllib_per.own_forwards import what_columns_do
from rllib_per.replay.divergence import TrainingDivergedError
from rllib_per.schedules import schedule

# Of a camera's image. Atari's have 84 or 42; boards of games have 20 at most on their longer side.
_SMALLEST_SIDE = 16


class ApexDQNModule(TorchRLModule, QNetAPI, TargetNetworkAPI, InferenceOnlyAPI):
    """Q(s, ·) for Box observations and Discrete actions; `model_config` as in `NetworkConfig`.

    Vectors (and stacks of them), boards and planes are flattened into an MLP. Images are (stack,
    H, W), oldest frame first, or a single (H, W) of uint8; uint8 pixels are scaled to [0, 1] on
    the device.
    """

    def setup(self) -> None:
        obs_shape = _obs_shape(self.observation_space)
        model_config = self.model_config
        is_image = _is_image(self.observation_space, as_mapping(model_config))
        config = network_config(model_config, is_image=is_image)
        if config.network != "mlp":
            _check_image(obs_shape)
        given = model_config if isinstance(model_config, dict) else {}
        self.objective = build_objective(given.get("objective", "expected"))
        num_actions = _num_actions(self.action_space)
        self.q_network = QNetwork(config, obs_shape, num_actions, self.objective)
        initialize(self.q_network, as_mapping(model_config))
        self._epsilon = schedule(given.get("epsilon", 0.0))
        self._double_q = given.get("double_q", True)

    def compute_q_values(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {QF_PREDS: self.q_network(batch[Columns.OBS]).q}

    def make_target_networks(self) -> None:
        self.target_q_network = make_target_network(self.q_network)

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.q_network, self.target_q_network)]

    def get_non_inference_attributes(self) -> list[str]:
        return ["target_q_network"]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        with torch.no_grad():
            return {QF_PREDS: self.target_q_network(batch[Columns.OBS]).q}

    @what_columns_do
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            return {Columns.ACTIONS: self.q_network(batch[Columns.OBS]).q.argmax(dim=1)}

    @what_columns_do
    def _forward_exploration(
        self, batch: dict[str, Any], t: int = 0, **kwargs: Any
    ) -> dict[str, Tensor]:
        """ε-greedy at env step `t`, for RLlib's own env runners; ours explores by itself."""
        with torch.no_grad():
            q_values = self.q_network(batch[Columns.OBS]).q
        size = q_values.shape[:1]
        chance = torch.rand(size, device=q_values.device)
        anything = torch.randint(q_values.shape[1], size, device=q_values.device)
        explores = chance < self._epsilon(int(t))
        return {Columns.ACTIONS: torch.where(explores, anything, q_values.argmax(dim=1))}

    @what_columns_do
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """What RLlib's own DQN loss reads, for `Learner.update`."""
        next_batch = {Columns.OBS: batch[Columns.NEXT_OBS]}
        output = self.compute_q_values(batch)
        output[QF_TARGET_NEXT_PREDS] = self.forward_target(next_batch)[QF_PREDS]
        if self._double_q:
            with torch.no_grad():
                output[QF_NEXT_PREDS] = self.compute_q_values(next_batch)[QF_PREDS]
        return output


def networks_of(module: Any, objective: Objective) -> tuple[Network, Network]:
    """The online and the target network of a module with RLlib's QNetAPI and TargetNetworkAPI.

    Raises:
        ValueError: The objective needs more than the Q-values that the module gives.
    """
    kind = type(module)
    if issubclass(kind, ApexDQNModule):
        own = (kind.compute_q_values, kind.forward_target)
        if own == (ApexDQNModule.compute_q_values, ApexDQNModule.forward_target):
            return module.q_network, module.target_q_network
    if objective.num_outputs is not None or objective.num_taus:
        raise ValueError(
            f"{type(objective).__name__} needs more outputs per action than the one that "
            f"{kind.__name__}.compute_q_values gives: use ApexDQNModule as it is, or the "
            "objective 'expected'"
        )

    def online(obs: Observations, mask: Tensor | None, num_taus: int | None) -> Outputs:
        return Outputs(module.compute_q_values({Columns.OBS: obs})[QF_PREDS])

    def target(obs: Observations, mask: Tensor | None, num_taus: int | None) -> Outputs:
        return Outputs(module.forward_target({Columns.OBS: obs})[QF_PREDS])

    return online, target


def _obs_shape(space: gym.Space[Any]) -> tuple[int, ...]:
    if not isinstance(space, gym.spaces.Box):
        raise ValueError(
            f"ApexDQNModule needs a Box observation space: got {space}; flatten it in the "
            "environment, or give a module of your own in `config.rl_module(rl_module_spec=...)`"
        )
    return tuple(space.shape)


def _is_image(space: gym.Space[Any], given: dict[str, Any]) -> bool:
    """Whether convolutions are the default: pixels of a camera, or settings of convolutions.

    Three axes, or two of bytes, of which two neighbours are at least 16 long. Boards, planes and
    memory are shorter. `network` overrules it.
    """
    shape = space.shape or ()
    if len(shape) != 3 and not (len(shape) == 2 and space.dtype == np.uint8):
        return False
    if given.get("conv_filters") is not None or given.get("channels") is not None:
        return True
    return max(map(min, itertools.pairwise(shape))) >= _SMALLEST_SIDE


def _num_actions(space: gym.Space[Any]) -> int:
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise ValueError(f"Q-learning needs a Discrete action space that starts at 0: got {space}")
    return int(space.n)


def _check_image(shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3):
        raise ValueError(f"images must be (stack, height, width) or (height, width): got {shape}")
    if len(shape) == 3 and shape[2] < min(shape[:2]):
        raise ValueError(
            f"images must be (stack, height, width): got {shape}, which looks like (height, width, "
            "channels); transpose the observations, for example with "
            "gymnasium.wrappers.TransformObservation, or set model_config network='mlp' if they "
            "are no images"
        )


def require_finite(net: nn.Module, num_updates: int) -> None:
    """Raises TrainingDivergedError if a weight of `net` is NaN or infinite."""
    # A sum is NaN or infinite where one of its terms is.
    sums = torch.stack([parameter.detach().sum() for parameter in net.parameters()])
    num_bad = int((~sums.isfinite()).sum())
    if num_bad:
        raise TrainingDivergedError(
            f"weights must be finite: {num_bad} of the network's {len(sums)} tensors hold NaN or "
            f"infinity after {num_updates} updates, and are given to no one. Training has "
            "diverged: go back to a checkpoint, and lower lr, set grad_clip or clip rewards"
        )
