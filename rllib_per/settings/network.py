# SPDX-License-Identifier: MIT
"""The network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rllib_per.settings.rules import OneOf, Positive
from rllib_per.settings.section import Section

# What `make_activation` makes.
ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "swish", "linear")
Activation = Annotated[str, OneOf(ACTIVATIONS)]


@dataclass(frozen=True)
class Network(Section):
    """The network."""

    network: Literal["mlp", "nature", "impala"] | None = None
    """Kind of network; null: "nature" (Mnih et al. 2015) for images, else "mlp". Other keys of this
    section that are null are as that kind has them."""
    encoder_hiddens: list[Positive] | None = None
    """Sizes of the dense layers before the streams."""
    hiddens: list[Positive] | None = None
    """Sizes of the dense layers of each stream, value and advantage, or of the only one."""
    activation: Activation = "relu"
    """Activation of all layers but the streams' and those of "impala", which have relu: relu, tanh,
    elu, gelu, silu or linear."""
    head_activation: Activation = "relu"
    """Activation of the streams' layers."""
    conv_filters: list[list[Positive]] | None = None
    """[channels, kernel, stride] of each convolution of "nature"."""
    channels: list[Positive] | None = None
    """Channels of each residual block of "impala"."""
    width: Positive = 1
    """Factor of the channels of "impala"."""
    spectral_norm: bool = False
    """Divide the residual convolutions of "impala" by their spectral norm (Clark et al. 2025)."""
    adaptive_pool: Positive | None = None
    """Rows and columns that the features of "impala" are max-pooled to, 6 in Clark et al. (2025);
    null: they are not."""
    layer_norm: bool = False
    """Normalize dense layers, also of the streams, before the activation (Ba et al. 2016)."""
    scale_encoder_gradient: bool = False
    """Multiply the gradient into the encoder of a dueling network by 1/√2 (Wang et al. 2016)."""
    fcnet_kernel_initializer: str | None = None
    """Initializer of the weights of dense layers before the streams: an in-place one of
    torch.nn.init, such as orthogonal_; null: PyTorch's own. The name is RLlib's."""
    conv_kernel_initializer: str | None = None
    """Initializer of the weights of convolutions, as `fcnet_kernel_initializer`."""
    head_fcnet_kernel_initializer: str | None = None
    """Initializer of the weights of the streams, as `fcnet_kernel_initializer`."""
    image_format: Literal["CHW", "HWC"] | None = None
    """Whether images have their channels first or last; null finds it from the space: they are on
    the last of three axes if that is the shortest, else on the first."""
    scale_bytes: bool | None = None
    """Divide bytes by 255; null: those of images, and not codes such as a small board's."""
    module_class: str | None = None
    """An RLModule class of your own instead, behind --allow-custom-classes: `module.Class` or
    `file.py:Class`, a path from this file (docs/own_network.md)."""
