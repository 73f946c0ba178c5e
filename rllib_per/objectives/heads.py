# SPDX-License-Identifier: MIT
"""Heads: streams of dense layers that turn a state's features into outputs per action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from rllib_per.objectives.losses import dueling_q_values
from rllib_per.objectives.noise import NoisyLinear

_ACTIVATIONS: dict[str | None, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "linear": nn.Identity,
    None: nn.Identity,
}

# Those behind which a unit may be dormant.
ACTIVATION_MODULES = tuple({*_ACTIVATIONS.values()} - {nn.Identity})


@dataclass(frozen=True)
class Streams:
    """The sizes of a head.

    Attributes:
        hiddens: Units of each dense layer of each stream.
        activation: Behind each of them.
        dueling: Two streams, of the state's value and the actions' advantages, instead of one.
        sigma0: Of the noise of every layer (`NoisyLinear`); None: no noise.
        layer_norm: See `dense_layers`.
    """

    hiddens: Sequence[int] = ()
    activation: str | None = "relu"
    dueling: bool = True
    sigma0: float | None = None
    layer_norm: bool = False

    def linear(self, num_inputs: int, num_outputs: int) -> nn.Linear:
        """A layer of a head."""
        if self.sigma0 is None:
            return nn.Linear(num_inputs, num_outputs)
        return NoisyLinear(num_inputs, num_outputs, self.sigma0)


class Head(Protocol):
    """A module: features (B, F), legal actions (B, A) or None, fractions (B, K) or None."""

    def __call__(
        self, features: Tensor, mask: Tensor | None = None, taus: Tensor | None = None
    ) -> Tensor:
        """(B, A), which is Q, or (B, A, K)."""


class StreamHead(nn.Module):
    """Outputs per action from one stream: K, or without an axis for them where K is None."""

    def __init__(
        self, num_features: int, num_actions: int, num_outputs: int | None, streams: Streams
    ) -> None:
        super().__init__()
        self.num_actions, self.num_outputs = num_actions, num_outputs
        self.advantage = stream(num_features, num_actions * (num_outputs or 1), streams)

    def forward(
        self, features: Tensor, mask: Tensor | None = None, taus: Tensor | None = None
    ) -> Tensor:
        return self._per_action(self.advantage(features), self.num_actions)

    def _per_action(self, outputs: Tensor, num_actions: int) -> Tensor:
        if self.num_outputs is None:
            return outputs
        return outputs.view(-1, num_actions, self.num_outputs)


class DuelingHead(StreamHead):
    """The same from a value and an advantage stream (Wang et al. 2016)."""

    def __init__(
        self, num_features: int, num_actions: int, num_outputs: int | None, streams: Streams
    ) -> None:
        super().__init__(num_features, num_actions, num_outputs, streams)
        self.value = stream(num_features, num_outputs or 1, streams)

    def forward(
        self, features: Tensor, mask: Tensor | None = None, taus: Tensor | None = None
    ) -> Tensor:
        values = self._per_action(self.value(features), 1)
        return dueling_q_values(values, super().forward(features), mask)


def dueling_head(
    num_features: int, num_actions: int, num_outputs: int | None, streams: Streams
) -> StreamHead:
    """Outputs per action from one stream or two, as `streams` says."""
    kind = DuelingHead if streams.dueling else StreamHead
    return kind(num_features, num_actions, num_outputs, streams)


def stream(num_features: int, num_outputs: int, streams: Streams) -> nn.Sequential:
    """Dense layers, and a linear one with the outputs on top."""
    last = (num_features, *streams.hiddens)[-1]
    hidden = dense_layers(
        num_features,
        streams.hiddens,
        streams.activation,
        linear=streams.linear,
        layer_norm=streams.layer_norm,
    )
    return nn.Sequential(*hidden, streams.linear(last, num_outputs))


def dense_layers(
    num_features: int,
    hiddens: Sequence[int],
    activation: str | None,
    *,
    linear: Callable[[int, int], nn.Linear] = nn.Linear,
    layer_norm: bool = False,
) -> list[nn.Module]:
    """Linear layers of these sizes, each with its activation behind it.

    Args:
        num_features, hiddens, activation: See `Streams`.
        linear: Makes a layer.
        layer_norm: Normalize each row before the activation (Ba et al. 2016).
    """
    layers: list[nn.Module] = []
    for size in hiddens:
        layers.append(linear(num_features, size))
        if layer_norm:
            layers.append(nn.LayerNorm(size))
        layers.append(make_activation(activation))
        num_features = size
    return layers


def make_activation(name: str | None) -> nn.Module:
    """The activation of this name; raises ValueError if there is none."""
    if name not in _ACTIVATIONS:
        known = ", ".join(str(known) for known in _ACTIVATIONS)
        raise ValueError(f"an activation must be one of {known}: got {name!r}")
    return _ACTIVATIONS[name]()
