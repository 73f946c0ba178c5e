# SPDX-License-Identifier: MIT
"""Convolutions of spectral norm 1 (Miyato et al. 2018), whose state only an update changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

# So that σ is near the largest singular value from the first pass on.
_NUM_ITERATIONS_AT_FIRST = 15


class SpectralConv2d(nn.Conv2d):
    """A convolution by W/σ(W), where σ(W) = uᵀWv is the largest singular value of W.

    W counts as a matrix (C_out, C_in·k·k); u and v come near its first singular vectors by power
    iteration (Miyato et al. 2018, algorithm 1). PyTorch's own `spectral_norm` iterates in every
    pass of training, so that acting with the learner's network would change it, and the passes of
    one update would have different weights. Here only `iterate` does. u and v are buffers, which
    go along with W to target networks, env runners and checkpoints.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=padding)
        num_columns = in_channels * kernel * kernel
        self.u: Tensor
        self.v: Tensor
        self.register_buffer("u", normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("v", normalize(torch.randn(num_columns), dim=0))
        self.iterate(_NUM_ITERATIONS_AT_FIRST)

    @torch.no_grad()
    def iterate(self, num_iterations: int = 1) -> None:
        """v ← Wᵀu/‖Wᵀu‖, u ← Wv/‖Wv‖."""
        weight = self.weight.flatten(1)
        for _ in range(num_iterations):
            self.v.copy_(normalize(weight.t() @ self.u, dim=0))
            self.u.copy_(normalize(weight @ self.v, dim=0))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        return self._conv_forward(inputs, self.weight / self.sigma(), self.bias)

    def sigma(self) -> Tensor:
        """uᵀWv. ()."""
        # Not by matrix products, which mixed precision would round.
        return (self.weight.flatten(1) * torch.outer(self.u, self.v)).sum()


class SpectralNorms:
    """The spectral norms of an online and a target network, kept near their weights.

    Args:
        online, target: The networks.
    """

    def __init__(self, online: nn.Module, target: nn.Module) -> None:
        self._online, self._target = _layers(online), _layers(target)

    def begin_update(self) -> None:
        """One power iteration for the online network."""
        for layer in self._online:
            layer.iterate()

    def after_averaging(self) -> None:
        """For the target network, whose averaged u and v are no singular vectors of anything."""
        for layer in self._target:
            layer.iterate()


def start_spectral_norms(network: nn.Module) -> None:
    """After the weights were filled otherwise than by the layers themselves."""
    for layer in _layers(network):
        layer.iterate(_NUM_ITERATIONS_AT_FIRST)


def _layers(network: nn.Module) -> list[SpectralConv2d]:
    return [layer for layer in network.modules() if isinstance(layer, SpectralConv2d)]
