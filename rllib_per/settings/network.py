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
    """null: "nature" (Mnih et al. 2015) for images, else "mlp". Below, null: the network's own."""
    encoder_hiddens: list[Positive] | None = None
    """Dense layers before the streams."""
    hiddens: list[Positive] | None = None
    """Dense layers of each stream, value and advantage, or of the only one."""
    activation: Activation = "relu"
    """Of all layers but the streams' and those of "impala", which have relu: relu, tanh, elu, gelu,
    silu or linear."""
    head_activation: Activation = "relu"
    """Of the streams."""
    conv_filters: list[list[Positive]] | None = None
    """Of "nature": [channels, kernel, stride] of each convolution."""
    channels: list[Positive] | None = None
    """Of "impala": channels of each residual block."""
    width: Positive = 1
    """Of "impala": factor of the channels."""
    spectral_norm: bool = False
    """Of "impala": residual convolutions are divided by their spectral norm (Clark et al. 2025)."""
    adaptive_pool: Positive | None = None
    """Of "impala": rows and columns that features are max-pooled to, 6 in Clark et al. (2025);
    null: they are not."""
    layer_norm: bool = False
    """LayerNorm in dense layers, before the activation (Ba et al. 2016); in the streams, too."""
    scale_encoder_gradient: bool = False
    """Of dueling networks: the gradient into the encoder times 1/√2 (Wang et al. 2016)."""
    fcnet_kernel_initializer: str | None = None
    """Of the weights of dense layers before the streams: an in-place initializer of torch.nn.init,
    such as orthogonal_; null: PyTorch's own. RLlib's name, as the next two."""
    conv_kernel_initializer: str | None = None
    """Of convolutions."""
    head_fcnet_kernel_initializer: str | None = None
    """Of the streams."""
    image_format: Literal["CHW", "HWC"] | None = None
    """Of images: channels first or last; null finds it from the space: they are on the last of
    three axes if that is the shortest, else on the first."""
    scale_bytes: bool | None = None
    """Divide bytes by 255; null: those of images, and not codes such as a small board's."""
    module_class: str | None = None
    """An RLModule class of your own instead, behind --allow-custom-classes: `module.Class` or
    `file.py:Class`, a path from this file (docs/own_network.md)."""
