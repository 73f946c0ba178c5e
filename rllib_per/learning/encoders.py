# SPDX-License-Identifier: MIT
"""Encoders: what an observation becomes before an objective's head, one for each of its leaves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rllib_per.learning.networks import NetworkConfig
from rllib_per.learning.spectral_norm import SpectralConv2d
from rllib_per.objectives.heads import dense_layers, make_activation
from rllib_per.replay.leaves import Leaf, ObservationTree, leaves_of

CHW, HWC = IMAGE_FORMATS = ("CHW", "HWC")

# Of a camera's image. Atari's have 84 or 42; boards of games have 20 at most on their longer side.
_SMALLEST_SIDE = 16


def make_encoder(tree: ObservationTree, configs: Mapping[str, NetworkConfig]) -> Encoder:
    """Of a batch of observations, with a config for each leaf.

    Raises:
        ValueError: A leaf is not what its network encodes.
    """
    if tree.single is not None:
        return LeafEncoder(tree.single, configs[""])
    return TreeEncoder({leaf.path: LeafEncoder(leaf, configs[leaf.path]) for leaf in tree.leaves})


class LeafEncoder(nn.Sequential):
    """One leaf (B, *shape) -> (B, num_features).

    Numbers are flattened; categories become ones among zeros; images (stack, C, H, W) have the
    stacked frames' channels one after the other. Then convolutions, and dense layers.

    Args:
        leaf: Of the observation space.
        config: Its `network` says whether it is an image.
    """

    def __init__(self, leaf: Leaf, config: NetworkConfig) -> None:
        axes = None if config.network == "mlp" else _image_axes(leaf, config.image_format)
        if axes is None:
            first: nn.Module = nn.Flatten()
            num_features = _num_inputs(leaf)
        else:
            first = _convolutions(config, axes.channels, axes.size, leaf)
            num_features = _num_features(first, (axes.channels, *axes.size))
        dense = dense_layers(
            num_features, config.encoder_hiddens, config.activation, layer_norm=config.layer_norm
        )
        super().__init__(first, *dense)
        self.num_features: int = (num_features, *config.encoder_hiddens)[-1]
        self._axes = axes
        scales = config.scale_bytes
        if scales is None:
            scales = axes is not None or looks_like_image(leaf)
        self._scales = scales
        self._is_number = not leaf.shape
        is_last = config.channels_last and axes is not None
        self._memory_format = torch.channels_last if is_last else torch.preserve_format
        self._has_categories = axes is None and leaf.categories is not None
        if self._has_categories:
            places, categories = _categories(leaf)
            self._places = nn.Buffer(places, persistent=False)
            self._categories = nn.Buffer(categories, persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        features = self._inputs(obs)
        for layer in self:
            features = layer(features)
        return features

    def _inputs(self, obs: Tensor) -> Tensor:
        """float32, of the shape that the first layer takes; images are not copied as bytes."""
        if self._has_categories:
            numbers = obs.reshape(obs.shape[0], -1).long()[:, self._places]
            return torch.eq(numbers, self._categories).float()
        if self._is_number:
            obs = obs.unsqueeze(1)
        if self._axes is not None:
            if self._axes.is_gray:
                obs = obs.unsqueeze(1)
            if self._axes.moves_channels:
                obs = obs.movedim(-1, -3)
            if self._axes.joins_frames:
                obs = obs.flatten(1, 2)
        features = obs.to(torch.float32, memory_format=self._memory_format)
        return features.mul_(1 / 255) if self._scales and obs.dtype == torch.uint8 else features


class TreeEncoder(nn.ModuleDict):
    """A mapping of leaves by path, or what RLlib makes of the space -> (B, num_features).

    Args:
        encoders: By path; their features stand one after the other.
    """

    def __init__(self, encoders: Mapping[str, LeafEncoder]) -> None:
        # With a prefix: a module's name may not be a method of ModuleDict, such as "items".
        super().__init__({f"obs/{path}": encoder for path, encoder in encoders.items()})
        self._paths = list(encoders)
        self.num_features: int = sum(encoder.num_features for encoder in encoders.values())

    def forward(self, obs: Any) -> Tensor:
        leaves = leaves_of(obs)
        return torch.cat([self[f"obs/{path}"](leaves[path]) for path in self._paths], dim=1)


Encoder = LeafEncoder | TreeEncoder


def looks_like_image(leaf: Leaf) -> bool:
    """Whether it is of a camera's size.

    Three axes, or four with a stack, or two of bytes, of which two neighbours are at least 16
    long. Boards, planes and memory are shorter.
    """
    shape = leaf.shape
    if not (len(shape) in (3, 4) or (len(shape) == 2 and leaf.dtype == np.uint8)):
        return False
    return max(map(min, itertools.pairwise(shape[-3:]))) >= _SMALLEST_SIDE


def image_format(leaf: Leaf) -> str:
    """Channels are on the last axis if that is the shortest of three, else on the first."""
    first, middle, last = leaf.shape[-3:]
    return HWC if last < min(first, middle) else CHW


class _ImageAxes(NamedTuple):
    """How an image becomes what convolutions take."""

    channels: int
    size: tuple[int, int]
    is_gray: bool = False
    moves_channels: bool = False
    joins_frames: bool = False


def _image_axes(leaf: Leaf, asked: str | None) -> _ImageAxes:
    shape = leaf.shape
    if not 2 <= len(shape) <= 4:
        raise ValueError(
            "images must be (height, width), (channels, height, width) or (height, width, "
            "channels), or stacks of the last two: got none of these, for "
            f"the {leaf} has the shape {shape}; set model_config['network'] to 'mlp' if it is no "
            "image"
        )
    if len(shape) == 2:
        return _ImageAxes(1, (shape[0], shape[1]), is_gray=True)
    first, middle, last = shape[-3:]
    frames = shape[0] if len(shape) == 4 else 1
    if (asked or image_format(leaf)) == HWC:
        return _ImageAxes(
            frames * last, (first, middle), moves_channels=True, joins_frames=len(shape) == 4
        )
    return _ImageAxes(frames * first, (middle, last), joins_frames=len(shape) == 4)


def _num_inputs(leaf: Leaf) -> int:
    if leaf.categories is not None:
        return int(np.sum(leaf.categories[1]))
    return int(np.prod(leaf.shape, dtype=np.int64))


def _categories(leaf: Leaf) -> tuple[Tensor, Tensor]:
    """For each input, which of the leaf's numbers it is of, and for which value it is 1."""
    assert leaf.categories is not None
    starts, counts = (np.broadcast_to(part, leaf.shape).ravel() for part in leaf.categories)
    places = np.repeat(np.arange(len(counts)), counts)
    values = np.concatenate(
        [start + np.arange(count) for start, count in zip(starts, counts, strict=True)]
    )
    return torch.from_numpy(places), torch.from_numpy(values)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))) (Espeholt et al. 2018, fig. 3)."""

    def __init__(self, channels: int, *, spectral_norm: bool) -> None:
        super().__init__()
        kind = SpectralConv2d if spectral_norm else nn.Conv2d
        self.before = nn.ReLU()
        self.first = kind(channels, channels, 3, padding=1)
        self.between = nn.ReLU()
        self.second = kind(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.between(self.first(self.before(x))))


class _AdaptiveMaxPool(nn.Module):
    """The maximum of each of n × n windows, i of H rows from ⌊iH/n⌋ up to ⌈(i+1)H/n⌉."""

    def __init__(self, num_windows: int) -> None:
        super().__init__()
        self._num_windows = num_windows

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return functional.adaptive_max_pool2d(x, self._num_windows)
        for axis in (2, 3):  # ONNX has no such operation.
            size, n = x.shape[axis], self._num_windows
            windows = [(i * size // n, -(-(i + 1) * size // n)) for i in range(n)]
            rows = [x.narrow(axis, low, high - low).amax(axis) for low, high in windows]
            x = torch.stack(rows, axis)
        return x


def _convolutions(
    config: NetworkConfig, stack: int, size: tuple[int, int], leaf: Leaf
) -> nn.Module:
    if config.network == "nature":
        _check_size(config, size, leaf)
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
            ResidualBlock(channels, spectral_norm=config.spectral_norm),
            ResidualBlock(channels, spectral_norm=config.spectral_norm),
        ]
        stack = channels
    layers.append(nn.ReLU())
    if config.adaptive_pool is not None:
        layers.append(_AdaptiveMaxPool(config.adaptive_pool))
    return nn.Sequential(*layers, nn.Flatten())


def is_smaller(leaf: Leaf, asked: str | None, side: int) -> bool:
    """Whether a leaf with the axes of an image has a shorter side than this."""
    return 2 <= len(leaf.shape) <= 4 and min(_image_axes(leaf, asked).size) < side


def smallest_side(conv_filters: Sequence[tuple[int, int, int]]) -> int:
    """Of an image of which one pixel is left behind these convolutions."""
    smallest = 1
    for _, kernel, stride in reversed(conv_filters):
        smallest = (smallest - 1) * stride + kernel
    return smallest


def _check_size(config: NetworkConfig, size: tuple[int, int], leaf: Leaf) -> None:
    smallest = smallest_side(config.conv_filters)
    if min(size) < smallest:
        raise ValueError(
            f"these convolutions need images of {smallest}×{smallest} at least: got "
            f"{size[0]}×{size[1]} of the {leaf}; enlarge the frames, or set `conv_filters` to "
            "smaller kernels, such as [[16, 3, 1]] for MinAtar, or `network` to 'impala', which "
            "takes any size, or to 'mlp' for what is no image"
        )


def _num_features(encoder: nn.Module, obs_shape: tuple[int, int, int]) -> int:
    with torch.no_grad():
        return encoder(torch.zeros(1, *obs_shape)).shape[1]
