# SPDX-License-Identifier: MIT
"""Q-networks: an encoder of vectors or images, and an objective's head on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rllib_per.objectives import Objective, Outputs
from rllib_per.objectives.heads import Streams, dense_layers, make_activation
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.network import Network
from rllib_per.settings.training import Training

ConvFilters = tuple[tuple[int, int, int], ...]

NATURE_FILTERS: ConvFilters = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
IMPALA_CHANNELS = (16, 32, 32)


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes of a Q-network.

    Attributes:
        network: "mlp" for vectors; "nature" (Mnih et al. 2015) or "impala" (Espeholt et al. 2018)
            for images.
        encoder_hiddens: Dense layers before the streams; after the convolutions, if there are any.
        hiddens: Dense layers of each stream (or of the only one).
        activation: Of encoder layers.
        head_activation: Of stream layers.
        conv_filters: "nature" only, (channels, kernel, stride) of each convolution.
        channels: "impala" only, of each residual block, times `width`.
        width: "impala" only.
        dueling: Separate value and advantage streams (Wang et al. 2016).
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
    dueling: bool = Training.dueling
    channels_last: bool = LearnerSettings.channels_last


class QNetwork(nn.Module):
    """What `objective` knows of observations: (B, *obs_shape), uint8 in [0, 255] or any number."""

    def __init__(
        self,
        config: NetworkConfig,
        obs_shape: Sequence[int],
        num_actions: int,
        objective: Objective,
    ) -> None:
        super().__init__()
        if config.network == "mlp":
            encoder: nn.Module = nn.Flatten()
            num_features = int(torch.Size(obs_shape).numel())
        else:
            stack, height, width = obs_shape if len(obs_shape) == 3 else (1, *obs_shape)
            encoder = _convolutions(config, stack, (height, width))
            num_features = _num_features(encoder, (stack, height, width))
        dense = dense_layers(num_features, config.encoder_hiddens, config.activation)
        self.encoder = nn.Sequential(encoder, *dense)
        num_features = (num_features, *config.encoder_hiddens)[-1]
        streams = Streams(config.hiddens, config.head_activation, config.dueling)
        self.head = objective.head(num_features, num_actions, streams)
        self._objective = objective
        self._is_image = config.network != "mlp"
        self._memory_format = (
            torch.channels_last
            if config.channels_last and self._is_image
            else torch.preserve_format
        )
        if config.channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, obs: Tensor, mask: Tensor | None = None, num_taus: int | None = None
    ) -> Outputs:
        """See `rllib_per.objectives.Networks`."""
        features = self._features(obs)
        num_taus = self._objective.num_taus if num_taus is None else num_taus
        taus = torch.rand(len(obs), num_taus, device=obs.device) if num_taus else None
        raw = self.head(features, mask, taus)
        return Outputs(self._objective.q_values(raw), raw, taus)

    def _features(self, obs: Tensor) -> Tensor:
        if self._is_image and obs.ndim == 3:
            obs = obs.unsqueeze(1)
        features = obs.to(torch.float32, memory_format=self._memory_format)
        if obs.dtype == torch.uint8:
            features = features.mul_(1 / 255)
        return self.encoder(features)


class _ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))) (Espeholt et al. 2018, fig. 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.relu(self.first(functional.relu(x))))


def _convolutions(config: NetworkConfig, stack: int, size: tuple[int, int]) -> nn.Module:
    if config.network == "nature":
        _check_size(config, size)
        return _nature(config, stack)
    return _impala(config, stack)


def _nature(config: NetworkConfig, stack: int) -> nn.Module:
    layers: list[nn.Module] = []
    for channels, kernel, stride in config.conv_filters:
        layers += [nn.Conv2d(stack, channels, kernel, stride), make_activation(config.activation)]
        stack = channels
    return nn.Sequential(*layers, nn.Flatten())


def _impala(config: NetworkConfig, stack: int) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (config.width * channels for channels in config.channels):
        layers += [
            nn.Conv2d(stack, channels, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            _ResidualBlock(channels),
            _ResidualBlock(channels),
        ]
        stack = channels
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten())


def _check_size(config: NetworkConfig, size: tuple[int, int]) -> None:
    """The smallest side that leaves one pixel is found by walking the convolutions backwards."""
    smallest = 1
    for _, kernel, stride in reversed(config.conv_filters):
        smallest = (smallest - 1) * stride + kernel
    if min(size) < smallest:
        raise ValueError(
            f"these convolutions need images of {smallest}×{smallest} at least: got "
            f"{size[0]}×{size[1]}; enlarge the frames, or give smaller kernels in "
            "model_config['conv_filters'], such as [[16, 3, 1]] for MinAtar, network='impala', "
            "which takes any size, or network='mlp' for what is no image"
        )


def _num_features(encoder: nn.Module, obs_shape: tuple[int, int, int]) -> int:
    with torch.no_grad():
        return encoder(torch.zeros(1, *obs_shape)).shape[1]
