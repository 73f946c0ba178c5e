# SPDX-License-Identifier: MIT
"""How much of a network still takes part: dormant units, rank of the features, norm of the weights.

Measured once between two reports, by a pass of its own without noise and gradient.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rllib_per.learning.optimizers import global_norm
from rllib_per.objectives.heads import ACTIVATION_MODULES
from rllib_per.objectives.objective import Observations, map_leaves

logger = logging.getLogger(__name__)

DORMANT_SHARE_KEY = "dormant_share"
FEATURE_RANK_KEY = "feature_rank"
WEIGHT_NORM_KEY = "weight_norm"

# In the dormant shares: of all layers together.
ALL_LAYERS = "all"

# The thresholds of Sokar et al. (2023) and Kumar et al. (2021).
_TAU = 0.025
_DELTA = 0.01

# What a measurement may cost: a pass with so many rows of a batch, in one of so many updates.
_NUM_ROWS = 128
_UPDATES_BETWEEN = 100


def unit_activity(outputs: Tensor) -> Tensor:
    """E|h_i| of every unit of a layer: (B, ..., H) -> (H,); a channel is a unit, (B, C, H, W)."""
    units = 1 if outputs.ndim == 4 else outputs.ndim - 1
    return outputs.abs().mean(dim=[axis for axis in range(outputs.ndim) if axis != units])


def is_dormant(activity: Tensor, tau: float = _TAU) -> Tensor:
    """Whose score E|h_i| / mean_k E|h_k| is at most τ (Sokar et al. 2023, def. 3.1). (H,) bool.

    All of them are where none is active.
    """
    return activity <= tau * activity.mean()


def effective_rank(features: Tensor, delta: float = _DELTA) -> int:
    """min{k: Σ_{i<=k} σ_i / Σ_i σ_i >= 1 − δ} of (B, F) (Kumar et al. 2021, §3); 0 of zeros."""
    # Singular values are the roots of the smaller Gram matrix's eigenvalues.
    rows = features.double()
    gram = rows @ rows.t() if rows.shape[0] < rows.shape[1] else rows.t() @ rows
    values = torch.linalg.eigvalsh(gram).clamp_(min=0.0).sqrt_().flip(0)
    shares = values.cumsum(0) / values.sum().clamp_(min=torch.finfo(values.dtype).tiny)
    return int((shares < 1.0 - delta).sum()) + 1 if values[0] > 0 else 0


@torch.no_grad()
def watch(
    network: Any, obs: Observations, watchers: Mapping[nn.Module, Callable[[Tensor], None]]
) -> None:
    """A pass without noise and gradient that changes nothing.

    Args:
        network: A QNetwork.
        obs: As it takes them.
        watchers: By a layer, who gets its outputs.
    """

    def hook(watcher: Callable[[Tensor], None]) -> Any:
        return lambda _layer, _inputs, outputs: watcher(outputs)

    hooks = [layer.register_forward_hook(hook(watcher)) for layer, watcher in watchers.items()]
    device, is_training = next(network.parameters()).device, network.training
    try:
        # Neither layers that change by training nor random numbers are to notice it.
        network.eval()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            network.forward(obs)  # Past hooks that others have put on the network.
    finally:
        network.train(is_training)
        for each in hooks:
            each.remove()


class NetworkHealth:
    """Measures a Q-network, at most once in `_UPDATES_BETWEEN` updates.

    Args:
        network: A QNetwork.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._layers = {
            name: layer
            for name, layer in network.named_modules()
            if isinstance(layer, ACTIVATION_MODULES)
        }
        self._is_due, self._updates_since = True, _UPDATES_BETWEEN
        self._activity: dict[str, Tensor] = {}
        self._features: Tensor | None = None
        self._report: dict[str, float | dict[str, float]] = {}

    def look(self, obs: Observations) -> None:
        """Before or after every update: measure on its observations, if it is time."""
        self._updates_since += 1
        if self._is_due and self._updates_since > _UPDATES_BETWEEN:
            self._is_due, self._updates_since = False, 0
            self._measure(map_leaves(lambda leaf: leaf[:_NUM_ROWS], obs))

    def _measure(self, obs: Observations) -> None:
        def note_features(outputs: Tensor) -> None:
            self._features = outputs

        def note_activity(name: str, outputs: Tensor) -> None:
            self._activity[name] = unit_activity(outputs)

        watchers = {
            layer: functools.partial(note_activity, name) for name, layer in self._layers.items()
        }
        watch(self._network, obs, watchers | {self._network.encoder: note_features})

    def report(self) -> dict[str, float | dict[str, float]]:
        """What was measured last; {} before the first update. The next update is measured."""
        self._is_due = True
        if self._features is None:
            return self._report
        report: dict[str, float | dict[str, float]] = {
            WEIGHT_NORM_KEY: global_norm([p.detach() for p in self._network.parameters()]).item()
        }
        if self._activity:
            dormant = {name: is_dormant(units) for name, units in self._activity.items()}
            dormant[ALL_LAYERS] = torch.cat(list(dormant.values()))
            shares = torch.stack([units.float().mean() for units in dormant.values()]).tolist()
            report[DORMANT_SHARE_KEY] = dict(zip(dormant, shares, strict=True))
        if self._features.isfinite().all():
            report[FEATURE_RANK_KEY] = effective_rank(self._features)
        self._report, self._features = report, None
        return report


class DeadAdvantages:
    """A layer of the advantage stream without an active unit, told once."""

    def __init__(self) -> None:
        self._is_told = False

    def look(self, dormant_shares: Mapping[str, float]) -> None:
        """Warn, the first time only, if one is dormant as a whole.

        Args:
            dormant_shares: By layer.
        """
        dead = [
            name
            for name, share in dormant_shares.items()
            if name.startswith("head.") and "advantage" in name and share == 1.0
        ]
        if self._is_told or not dead:
            return
        self._is_told = True
        logger.warning(
            "the advantage stream is dead: no unit of its layer %s is active in any observation of "
            "a batch, so that all states have the same greedy action, and no gradient passes. "
            "Begin again with a lower lr, or set model_config['layer_norm'] or "
            "model_config['scale_encoder_gradient'], or training(redo={}), which brings units back",
            dead[0],
        )
