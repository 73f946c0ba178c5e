# SPDX-License-Identifier: MIT
"""Noisy layers (Fortunato et al. 2018), and the noise that they have during a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class NoisyLinear(nn.Linear):
    """y = (W + σ_W ⊙ ε_W) x + b + σ_b ⊙ ε_b (Fortunato et al. 2018, eq. 9), with factorised noise.

    ε_W = f(ε_out) f(ε_in)ᵀ and ε_b = f(ε_out), where f(x) = sgn(x)·√|x| (eqs. 10 and 11). W and b
    begin uniformly in ±1/√p, as in nn.Linear, and every σ as sigma0/√p, of p inputs (§3.2).

    Attributes:
        noise: f(ε_in), f(ε_out): (p,) and (q,) for all rows of a batch, or (B, p) and (B, q), each
            row's own. None: y = W x + b. It is no buffer, so that it is neither saved nor copied to
            a target network.
    """

    def __init__(self, num_inputs: int, num_outputs: int, sigma0: float) -> None:
        super().__init__(num_inputs, num_outputs)
        self._sigma0 = sigma0
        self.sigma_weight = nn.Parameter(torch.empty_like(self.weight))
        self.sigma_bias = nn.Parameter(torch.empty_like(self.bias))
        self.reset_sigma()
        self.noise: tuple[Tensor, Tensor] | None = None

    def reset_sigma(self) -> None:
        """As at the start, which W and b are by `reset_parameters`."""
        for sigma in (self.sigma_weight, self.sigma_bias):
            nn.init.constant_(sigma, self._sigma0 / self.in_features**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ..., p) -> (B, ..., q)."""
        if self.noise is None:
            return super().forward(inputs)
        noise_in, noise_out = self.noise
        if noise_in.ndim == 1:
            weight = torch.addcmul(self.weight, self.sigma_weight, torch.outer(noise_out, noise_in))
            bias = torch.addcmul(self.bias, self.sigma_bias, noise_out)
            return functional.linear(inputs, weight, bias)
        # The same without a matrix for each row: ε_out ⊙ (σ_W (ε_in ⊙ x) + σ_b).
        if inputs.ndim > 2:
            axes = (1,) * (inputs.ndim - 2)
            noise_in = noise_in.view(len(noise_in), *axes, -1)
            noise_out = noise_out.view(len(noise_out), *axes, -1)
        noise = functional.linear(inputs * noise_in, self.sigma_weight, self.sigma_bias)
        return super().forward(inputs) + noise_out * noise


def noisy_layers(network: nn.Module) -> list[NoisyLinear]:
    """The noisy layers of a network, in order."""
    return [layer for layer in network.modules() if isinstance(layer, NoisyLinear)]


@contextmanager
def noise(
    layers: Sequence[NoisyLinear],
    generator: torch.Generator | None = None,
    num_rows: int | None = None,
) -> Iterator[None]:
    """Within, the layers have noise that is drawn here; behind it none.

    Args:
        layers: Of one network.
        generator: On the layers' device; None: PyTorch's own.
        num_rows: Of the batch, each of which is to have noise of its own; None: one for all.
    """
    if not layers:
        yield
        return
    sizes = [size for layer in layers for size in (layer.in_features, layer.out_features)]
    shape = (sum(sizes),) if num_rows is None else (num_rows, sum(sizes))
    drawn = torch.randn(shape, generator=generator, device=layers[0].weight.device)
    parts = torch.split(drawn.sign() * drawn.abs().sqrt(), sizes, dim=-1)
    for layer, noise_in, noise_out in zip(layers, parts[::2], parts[1::2], strict=True):
        layer.noise = noise_in, noise_out
    try:
        yield
    finally:
        for layer in layers:
            layer.noise = None


class UpdateNoise:
    """The noise of an update, new for every pass, and the same on all learners.

    It follows from seed and update alone, so a restored run has what it would have had.

    Args:
        online, target: The networks.
        seed: Of the whole run.
        device: Where they compute.
    """

    def __init__(
        self, online: nn.Module, target: nn.Module, seed: int, device: torch.device
    ) -> None:
        self._online, self._target = noisy_layers(online), noisy_layers(target)
        self._seed, self._generator = seed, torch.Generator(device)

    def begin(self, update: int) -> None:
        """Draw what belongs to this update from now on."""
        words = np.random.SeedSequence([self._seed, update]).generate_state(1, np.uint64)
        self._generator.manual_seed(int(words[0]))

    @contextmanager
    def online(self) -> Iterator[None]:
        """Within, the online network has new noise."""
        with noise(self._online, self._generator):
            yield

    @contextmanager
    def target(self) -> Iterator[None]:
        """Within, the target network has."""
        with noise(self._target, self._generator):
            yield
