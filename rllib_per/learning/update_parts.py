# SPDX-License-Identifier: MIT
"""What an update is made of: a module's networks and all that belongs to their passes."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor
from torch.optim import Optimizer

from rllib_per.action_masks import join_mask
from rllib_per.learning.module import ApexDQNModule
from rllib_per.learning.network_config import as_mapping
from rllib_per.learning.network_health import NetworkHealth
from rllib_per.learning.networks import QNetwork
from rllib_per.learning.redo import UnitRecycler
from rllib_per.learning.spectral_norm import SpectralNorms
from rllib_per.learning.step import NetworkFunction, NetworkPair
from rllib_per.objectives import Objective, ObjectiveSettings, Outputs, build_objective
from rllib_per.objectives.fractions import UpdateTaus
from rllib_per.objectives.noise import UpdateNoise
from rllib_per.objectives.objective import Observations
from rllib_per.own_forwards import q_values_of
from rllib_per.replay.leaves import ObservationTree
from rllib_per.settings.algorithm import Settings
from rllib_per.settings.objectives import objective_of, priority_of
from rllib_per.settings.section import as_dict
from rllib_per.settings.training import Training


def objective_from(training: Training) -> Objective:
    """What is learned by these settings."""
    given = as_dict(training)
    settings = ObjectiveSettings(
        training.double_q, training.td_error_loss_fn, priority_of(given), training.munchausen
    )
    return build_objective(objective_of(given), settings)


def network_pair(
    module: Any, objective: Objective, settings: Settings, device: torch.device
) -> NetworkPair:
    """The online and the target network of a module with RLlib's QNetAPI and TargetNetworkAPI.

    Raises:
        ValueError: The objective needs more than the Q-values that the module gives.
    """
    learners, seed = settings.learners, settings.transitions.seed
    taus = None
    if objective.num_acting_taus:
        num_learners = max(learners.num_learners, 1)
        taus = UpdateTaus(objective.num_acting_taus, seed or 0, device, num_learners)
    return NetworkPair(
        *_networks(module, objective),
        device,
        mixed_precision=learners.mixed_precision,
        compile_networks=learners.compile_module,
        noise=_noise(module, seed, device),
        spectral_norms=_spectral_norms(module),
        taus=taus,
    )


def health_of(module: Any) -> NetworkHealth | None:
    """What measures a network that is ours."""
    is_ours = isinstance(module, ApexDQNModule) and isinstance(module.q_network, QNetwork)
    return NetworkHealth(module.q_network) if is_ours else None


def recycler_of(
    module: Any, settings: Settings, optimizer: Optimizer | None
) -> UnitRecycler | None:
    """What gives dormant units new weights; None if it is not asked for.

    Raises:
        ValueError: The module's network or the optimizer is not ours.
    """
    redo = settings.training.redo
    if redo is None:
        return None
    if not (isinstance(module, ApexDQNModule) and _has_our_q_values(type(module))):
        raise ValueError(
            f"`redo` must know which layer reads which: {type(module).__name__} is no "
            "ApexDQNModule, or has Q-values of its own; leave `redo` out"
        )
    if optimizer is None:
        raise ValueError(
            "`redo` sets moments of the optimizer to 0: leave it out, or leave "
            "`configure_optimizers` and `configure_optimizers_for_module` of your learner out"
        )
    return UnitRecycler(
        module.q_network,
        redo,
        optimizer,
        model_config=as_mapping(module.model_config),
        seed=settings.transitions.seed or 0,
        num_learners=settings.learners.num_learners,
    )


def _has_our_q_values(kind: type[ApexDQNModule]) -> bool:
    own = (kind.compute_q_values, kind.forward_target)
    return own == (ApexDQNModule.compute_q_values, ApexDQNModule.forward_target)


def _networks(module: Any, objective: Objective) -> tuple[NetworkFunction, NetworkFunction]:
    kind = type(module)
    if issubclass(kind, ApexDQNModule) and _has_our_q_values(kind):
        return module.q_network, module.target_q_network
    if objective.num_outputs is not None or objective.num_acting_taus:
        raise ValueError(
            f"{type(objective).__name__} needs more outputs per action than the one that "
            f"{kind.__name__}.compute_q_values gives: use ApexDQNModule as it is, or the "
            "objective 'expected'"
        )

    nested = ObservationTree(module.observation_space).nested

    def whole(obs: Observations, mask: Tensor | None) -> dict[str, Any]:
        return {Columns.OBS: nested(join_mask(obs, mask))}

    def online(obs: Observations, mask: Tensor | None, taus: Tensor | None) -> Outputs:
        return Outputs(_bounded(q_values_of(module, "compute_q_values", whole(obs, mask))))

    def target(obs: Observations, mask: Tensor | None, taus: Tensor | None) -> Outputs:
        return Outputs(_bounded(q_values_of(module, "forward_target", whole(obs, mask))))

    return online, target


def _bounded(q_values: Tensor) -> Tensor:
    """With 0 in states where all actions are −∞, as in RLlib's loss: none is legal at an end."""
    return torch.where(q_values.isneginf().all(dim=1, keepdim=True), 0.0, q_values)


def _noise(module: Any, seed: int | None, device: torch.device) -> UpdateNoise | None:
    """Which the module's `_forward_train` has, too; None if it has no noisy layers."""
    if not (isinstance(module, ApexDQNModule) and module.is_noisy):
        return None
    networks = module.q_network, module.target_q_network
    module.update_noise = UpdateNoise(*networks, seed or 0, device)
    return module.update_noise


def _spectral_norms(module: Any) -> SpectralNorms | None:
    """Those of a module that is ours."""
    if not isinstance(module, ApexDQNModule):
        return None
    return SpectralNorms(module.q_network, module.target_q_network)
