# SPDX-License-Identifier: MIT
"""ApexDQNModule: a dueling Q-network and its target network as an RLlib RLModule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import gymnasium as gym
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

from rllib_per.action_masks import has_mask, split_mask, without_mask
from rllib_per.actions import num_actions
from rllib_per.learning.encoders import make_encoder
from rllib_per.learning.initializers import initialize
from rllib_per.learning.network_config import as_mapping, head_config, network_configs
from rllib_per.learning.networks import QNetwork
from rllib_per.learning.spectral_norm import start_spectral_norms
from rllib_per.objectives import build_objective
from rllib_per.objectives.losses import greedy_actions
from rllib_per.objectives.noise import UpdateNoise, noise, noisy_layers
from rllib_per.objectives.objective import Observations
from rllib_per.own_forwards import what_columns_do
from rllib_per.replay.divergence import TrainingDivergedError
from rllib_per.replay.leaves import ObservationTree, flat
from rllib_per.schedules import schedule
from rllib_per.settings.objectives import objective_of

# So many names of weights are in a message.
_NAMED = 3


class ApexDQNModule(TorchRLModule, QNetAPI, TargetNetworkAPI, InferenceOnlyAPI):
    """Q(s, ·) of any arrays, and of trees of them; `model_config` as in `NetworkConfig`.

    Each leaf has an encoder of its own, and the features of all stand one after the other.
    Vectors (and stacks of them), boards and planes are flattened into an MLP, categories become
    ones among zeros. Images go through convolutions: (H, W), or with channels or stacked frames on
    the first axis, or channels on the last, or a stack of these; their bytes are scaled to [0, 1]
    on the device.
    """

    def setup(self) -> None:
        model_config, space = self.model_config, self.observation_space
        source = as_mapping(model_config).get("action_masks", "auto")
        self._has_masks = has_mask(space, self.action_space, source)
        tree = ObservationTree(without_mask(space) if self._has_masks else space)
        configs = network_configs(model_config, tree)
        given = model_config if isinstance(model_config, dict) else {}
        self.objective = build_objective(objective_of(given))
        config = head_config(configs)
        self.q_network = QNetwork(
            config,
            make_encoder(tree, configs),
            _actions_from_zero(self.action_space),
            self.objective,
        )
        initialize(self.q_network, as_mapping(self.model_config))
        start_spectral_norms(self.q_network)
        self._epsilon = schedule(given.get("epsilon", 0.0))
        self._double_q = given.get("double_q", True)
        self._noisy_layers = noisy_layers(self.q_network)
        self.is_noisy = config.noisy
        # Of the learner that trains it.
        self.update_noise: UpdateNoise | None = None

    @what_columns_do
    def compute_q_values(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Of illegal actions too; `forward_inference` and `forward_exploration` pass those over."""
        return {QF_PREDS: self.q_network(*self._split(batch)).q}

    def _split(self, batch: dict[str, Any]) -> tuple[Observations, Tensor | None]:
        """The network's input, and the legal actions (B, A); None: all."""
        if not self._has_masks:
            return batch[Columns.OBS], None
        obs, mask = split_mask(batch[Columns.OBS])
        return obs, mask.bool()

    def exploring(
        self, num_rows: int, generator: torch.Generator | None = None
    ) -> AbstractContextManager[None]:
        """Within, Q-values are noisy, each of `num_rows` its own, if there are noisy layers.

        Args:
            num_rows: Of the batch.
            generator: Of the noise, on the module's device; None: PyTorch's own.
        """
        return noise(self._noisy_layers, generator, num_rows)

    def make_target_networks(self) -> None:
        self.target_q_network = make_target_network(self.q_network)

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.q_network, self.target_q_network)]

    def get_non_inference_attributes(self) -> list[str]:
        return ["target_q_network"]

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        with torch.no_grad():
            return {QF_PREDS: self.target_q_network(*self._split(batch)).q}

    @what_columns_do
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        _, mask = self._split(batch)
        with torch.no_grad():
            q_values = self.compute_q_values(batch)[QF_PREDS]
        return {Columns.ACTIONS: greedy_actions(q_values, mask)}

    @what_columns_do
    def _forward_exploration(
        self, batch: dict[str, Any], t: int = 0, **kwargs: Any
    ) -> dict[str, Tensor]:
        """ε-greedy at env step `t`, and noisy, for RLlib's env runners; ours explores by itself.

        As in RLlib's module, no random action has a Q-value of −∞.
        """
        obs, mask = self._split(batch)
        leaves = flat(obs)
        leaf = next(iter(leaves.values())) if isinstance(leaves, Mapping) else leaves
        with torch.no_grad(), self.exploring(len(leaf)):
            q_values = self.compute_q_values(batch)[QF_PREDS]
        size = q_values.shape[:1]
        chance = torch.rand(size, device=q_values.device)
        anything = torch.randint(q_values.shape[1], size, device=q_values.device)
        legal = ~q_values.isneginf()
        if mask is not None:
            legal &= mask
        if not legal.all():
            anything = torch.multinomial((legal | ~legal.any(1, keepdim=True)).float(), 1)[:, 0]
        explores = chance < self._epsilon(int(t))
        greedy = greedy_actions(q_values, mask)
        return {Columns.ACTIONS: torch.where(explores, anything, greedy)}

    @what_columns_do
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """What RLlib's own DQN loss reads, for `Learner.update`."""
        next_batch = {Columns.OBS: batch[Columns.NEXT_OBS]}
        noisy = self.update_noise
        online: Any = nullcontext if noisy is None else noisy.online
        target: Any = nullcontext if noisy is None else noisy.target
        with online():
            output = self.compute_q_values(batch)
        with target():
            output[QF_TARGET_NEXT_PREDS] = self.forward_target(next_batch)[QF_PREDS]
        if self._double_q:
            with torch.no_grad(), online():
                output[QF_NEXT_PREDS] = self.compute_q_values(next_batch)[QF_PREDS]
        _, mask = self._split(next_batch)
        if mask is not None:  # RLlib's loss takes the largest of these as they are.
            for key in {QF_TARGET_NEXT_PREDS, QF_NEXT_PREDS} & output.keys():
                lowest = torch.finfo(output[key].dtype).min
                output[key] = output[key].masked_fill(~mask, lowest)
        return output


def _actions_from_zero(space: gym.Space[Any]) -> int:
    """Our env runner's space always starts at 0; RLlib's runner sends what the module says."""
    count = num_actions(space)
    if getattr(space, "start", 0):
        raise ValueError(
            f"ApexDQNModule counts actions from 0, and RLlib's env runner sends them so: got "
            f"{space}; wrap the environment in rllib_per.runners.space_wrappers.ActionsFromZero, "
            "or leave `env_runner_cls` and what needs RLlib's runner out"
        )
    return count


def shapes_of(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's weights, by name; a state of one's own may hold other things too."""
    return {name: tuple(array.shape) for name, array in weights.items() if hasattr(array, "shape")}


def require_same_network(
    saved: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]]
) -> None:
    """Raise ValueError if weights of these shapes, by name, are of another network than one's own.

    RLlib's `set_state` passes over names that only one of them has, for parts that only learners
    have, and for a start with the weights of a part.
    """
    missing, unknown = [name for name in own if name not in saved], set(saved) - set(own)
    found = [
        f"{text} {', '.join(sorted(names)[:_NAMED])}{', …' * (len(names) > _NAMED)}"
        for text, names in (("without", missing), ("with", unknown))
        if names
    ]
    found += [
        f"{name} has the shape {tuple(saved[name])} there, {tuple(own[name])} here"
        for name in own
        if name in saved and tuple(saved[name]) != tuple(own[name])
    ][:_NAMED]
    if found:
        raise ValueError(
            f"the weights are of another network: {'; '.join(found)}. Let `model` and `dueling` be "
            "as they were there, or begin with new weights"
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
