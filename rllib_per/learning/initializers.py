# SPDX-License-Identifier: MIT
"""RLlib's initializers in a `model_config`: `fcnet_kernel_initializer` and its kin."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rllib_per.learning.networks import QNetwork
from rllib_per.objectives.noise import NoisyLinear

# RLlib's prefix, and the layers of the encoder or of the head that it speaks of.
_LAYERS: dict[str, type[nn.Module]] = {
    "fcnet": nn.Linear,
    "conv": nn.Conv2d,
    "head_fcnet": nn.Linear,
}

INITIALIZER_KEYS = frozenset(
    f"{prefix}_{what}_initializer{suffix}"
    for prefix in _LAYERS
    for what in ("kernel", "bias")
    for suffix in ("", "_kwargs")
)


def initialize(network: QNetwork, model_config: Mapping[str, Any]) -> None:
    """Fill the layers as `model_config` says; PyTorch's own initialization where it says nothing.

    `fcnet` and `conv` speak of the encoder, `head_fcnet` of the head, its last layers included.
    """
    of_head = layers_of_head(network)
    for layer in network.modules():
        _fill(layer, model_config, is_of_head=layer in of_head)


def layers_of_head(network: QNetwork) -> set[nn.Module]:
    """Those that `head_fcnet` speaks of."""
    head: Any = network.head
    return set(head.modules())


def initial_copy(
    layer: nn.Module, model_config: Mapping[str, Any], *, is_of_head: bool
) -> nn.Module:
    """The same layer as it might have begun, on the CPU, whose random numbers fill it."""
    fresh: Any = copy.deepcopy(layer).cpu()
    fresh.reset_parameters()
    if isinstance(fresh, NoisyLinear):
        fresh.reset_sigma()
    _fill(fresh, model_config, is_of_head=is_of_head)
    return fresh


def _fill(layer: Any, model_config: Mapping[str, Any], *, is_of_head: bool) -> None:
    for prefix, kind in _LAYERS.items():
        if not isinstance(layer, kind) or (prefix == "head_fcnet") != is_of_head:
            continue
        for what, name in (("kernel", "weight"), ("bias", "bias")):
            fill = initializer(model_config, prefix, what)
            if fill is not None:
                fill(getattr(layer, name))


def initializer(
    model_config: Mapping[str, Any], prefix: str, what: str
) -> Callable[[Tensor], Any] | None:
    """What fills a weight or a bias; None: PyTorch's own.

    Raises:
        ValueError: It is no in-place initializer of torch.nn.init.
    """
    key = f"{prefix}_{what}_initializer"
    given, options = model_config.get(key), model_config.get(f"{key}_kwargs") or {}
    if given is None:
        return None
    function = given
    if isinstance(given, str):
        function = getattr(nn.init, given.lower(), None) if given.endswith("_") else None
    if not callable(function):
        raise ValueError(
            f"model_config[{key!r}] must be a function, or the name of one of torch.nn.init that "
            f"ends with '_', such as 'xavier_uniform_': got {given!r}"
        )
    return lambda tensor: function(tensor, **options)


def check_initializers(model_config: Mapping[str, Any]) -> None:
    """Raise ValueError unless `initialize` takes them; those of PyTorch are tried."""
    for prefix, kind in _LAYERS.items():
        weight_shape = (2, 2) if kind is nn.Linear else (2, 2, 3, 3)
        for what, shape in (("kernel", weight_shape), ("bias", (2,))):
            key = f"{prefix}_{what}_initializer"
            fill = initializer(model_config, prefix, what)
            if fill is None:
                if model_config.get(f"{key}_kwargs"):
                    raise ValueError(
                        f"model_config['{key}_kwargs'] has no effect without {key!r}: leave it "
                        "out, or name an initializer"
                    )
            elif isinstance(model_config[key], str):
                _try(fill, key, model_config, shape)


def _try(
    fill: Callable[[Tensor], Any], key: str, model_config: Mapping[str, Any], shape: tuple[int, ...]
) -> None:
    """On a tensor with as many axes as those of the layers."""
    try:
        with torch.random.fork_rng([]):
            fill(torch.empty(shape))
    except (ValueError, TypeError, AttributeError) as error:
        options = model_config.get(f"{key}_kwargs") or {}
        raise ValueError(
            f"model_config[{key!r}] = {model_config[key]!r} with {dict(options)} cannot fill a "
            f"tensor of the shape {shape}: {error}"
        ) from error
