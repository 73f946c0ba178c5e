# SPDX-License-Identifier: MIT
"""Q-networks: an encoder of observations, and an objective's head on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rllib_per.objectives import Objective, Outputs
from rllib_per.objectives.fractions import midpoints
from rllib_per.objectives.heads import Streams
from rllib_per.objectives.noise import noisy_layers
from rllib_per.objectives.objective import Observations
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.network import Network
from rllib_per.settings.training import Training

if TYPE_CHECKING:
    from rllib_per.learning.encoders import Encoder

ConvFilters = tuple[tuple[int, int, int], ...]

NATURE_FILTERS: ConvFilters = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
IMPALA_CHANNELS = (16, 32, 32)


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes of a Q-network, or of one leaf's encoder.

    Attributes:
        network: "mlp" for vectors; "nature" (Mnih et al. 2015) or "impala" (Espeholt et al. 2018)
            for images.
        image_format: "CHW" or "HWC", channels first or last; None: recognised from the space.
        scale_bytes: Whether bytes are divided by 255; None: those of images are.
        encoder_hiddens: Dense layers before the streams; after the convolutions, if there are any.
        hiddens: Dense layers of each stream (or of the only one).
        activation: Of encoder layers.
        head_activation: Of stream layers.
        conv_filters: "nature" only, (channels, kernel, stride) of each convolution.
        channels: "impala" only, of each residual block, times `width`.
        width: "impala" only.
        spectral_norm: "impala" only, residual convolutions of spectral norm 1 (Clark et al. 2025).
        adaptive_pool: "impala" only, rows and columns that features are max-pooled to; None: none.
        layer_norm: LayerNorm in dense layers, those of the streams too.
        scale_encoder_gradient: What both streams send into the encoder, times 1/√2 (Wang et al.
            2016, §4.2).
        dueling: Separate value and advantage streams (Wang et al. 2016).
        noisy: Noise in the streams' layers (Fortunato et al. 2018).
        std_init: Of the noise, RLlib's `sigma0`.
        channels_last: Memory layout of images and convolutions.
    """

    network: str
    encoder_hiddens: tuple[int, ...]
    hiddens: tuple[int, ...]
    activation: str = Network.activation
    head_activation: str = Network.head_activation
    conv_filters: ConvFilters = NATURE_FILTERS
    channels: tuple[int, ...] = IMPALA_CHANNELS
    width: int = Network.width
    spectral_norm: bool = Network.spectral_norm
    adaptive_pool: int | None = Network.adaptive_pool
    layer_norm: bool = Network.layer_norm
    scale_encoder_gradient: bool = Network.scale_encoder_gradient
    dueling: bool = Training.dueling
    noisy: bool = Training.noisy
    std_init: float = Training.sigma0
    channels_last: bool = LearnerSettings.channels_last
    image_format: str | None = Network.image_format
    scale_bytes: bool | None = Network.scale_bytes


class QNetwork(nn.Module):
    """What `objective` knows of observations.

    Args:
        config: The head's sizes.
        encoder: (B, *obs_shape), of any dtype, or a tree of leaves -> (B, `num_features`).
        num_actions: A.
        objective: See there.
    """

    def __init__(
        self, config: NetworkConfig, encoder: Encoder, num_actions: int, objective: Objective
    ) -> None:
        super().__init__()
        self.encoder = encoder
        streams = Streams(
            config.hiddens,
            config.head_activation,
            config.dueling,
            sigma0=config.std_init if config.noisy else None,
            layer_norm=config.layer_norm,
        )
        self.head = objective.head(encoder.num_features, num_actions, streams)
        if config.noisy:
            _check_is_noisy(self.head, objective)
        self._objective = objective
        self._gradient_scale = 0.5**0.5 if config.scale_encoder_gradient else 1.0
        if config.channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, obs: Observations, mask: Tensor | None = None, taus: Tensor | None = None
    ) -> Outputs:
        """Of (B, *obs_shape), legal actions (B, A), and fractions (B, K); None: as to act."""
        features = self.encoder(obs)
        if self._gradient_scale != 1.0:
            constant = features.detach()
            features = constant + self._gradient_scale * (features - constant)
        if taus is None and self._objective.num_acting_taus:
            evenly = midpoints(self._objective.num_acting_taus, like=features)
            taus = evenly.expand(features.shape[0], -1)
        raw = self.head(features, mask, taus)
        return Outputs(self._objective.q_values(raw), raw, taus)


def _check_is_noisy(head: Any, objective: Objective) -> None:
    if not noisy_layers(head):
        raise ValueError(
            f"`noisy` has no effect on the head of {type(objective).__name__}, which has no noisy "
            "layers: make its layers with `streams.linear` or "
            "`rllib_per.objectives.heads.stream`, or set noisy=False"
        )
