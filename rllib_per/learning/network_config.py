# SPDX-License-Identifier: MIT
"""RLlib's `model_config`, and our keys in it, as a NetworkConfig."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per.did_you_mean import did_you_mean
from rllib_per.learning.encoders import IMAGE_FORMATS, is_smaller, looks_like_image, smallest_side
from rllib_per.learning.initializers import INITIALIZER_KEYS, check_initializers
from rllib_per.learning.networks import (
    IMPALA_CHANNELS,
    NATURE_FILTERS,
    ConvFilters,
    NetworkConfig,
)
from rllib_per.replay.leaves import Leaf, ObservationTree
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.network import Network
from rllib_per.settings.rules import rules_of
from rllib_per.settings.training import Training

# Each network's own encoder and stream sizes; the streams' 512 are those of Wang et al. (2016).
_DEFAULT_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mlp": ((256,), (256,)),
    "nature": ((), (512,)),
    "impala": ((), (256,)),
}

# What means nothing for a network.
_OF_OTHERS = {
    "mlp": ("conv_filters", "channels", "spectral_norm", "adaptive_pool"),
    "nature": ("channels", "spectral_norm", "adaptive_pool"),
    "impala": ("conv_filters",),
}

# RLlib's names for settings of ours, for vectors and for images.
_RLLIB_MLP_NAMES = {"encoder_hiddens": "fcnet_hiddens", "activation": "fcnet_activation"}
_RLLIB_CNN_NAMES = {"conv_filters": "conv_filters", "activation": "conv_activation"}
_RLLIB_HEAD_NAMES = {"hiddens": "head_fcnet_hiddens", "head_activation": "head_fcnet_activation"}

# What speaks of vectors, and of images, where an observation has both.
_OF_DENSE_LAYERS = frozenset(key for key in INITIALIZER_KEYS if key.startswith("fcnet_"))
_OF_CONVOLUTIONS = frozenset(key for key in INITIALIZER_KEYS if key.startswith("conv_"))
_OF_VECTORS = _OF_DENSE_LAYERS | {*_RLLIB_MLP_NAMES.values()}
_OF_IMAGES = _OF_CONVOLUTIONS | {
    *("network", "channels", "width", "spectral_norm", "adaptive_pool"),
    *_RLLIB_CNN_NAMES.values(),
}

# Which values a key may have, beside None; sizes and names of networks have checks of their own.
_RULES = {
    **{
        name: rules_of(section)[name]
        for section, names in (
            (
                Network,
                "activation head_activation width spectral_norm adaptive_pool layer_norm "
                "scale_encoder_gradient scale_bytes",
            ),
            (Training, "dueling noisy"),
            (LearnerSettings, "channels_last"),
        )
        for name in names.split()
    },
    "std_init": rules_of(Training)["sigma0"],
    **{
        f"{part}_activation": rules_of(Network)["activation"]
        for part in ("fcnet", "conv", "head_fcnet")
    },
}

# RLlib keys that mean nothing for a feed-forward Q-network, whatever their value ...
_WITHOUT_MEANING = ("fusionnet_", "lstm_", "max_seq_len", "free_log_std", "log_std", "vf_share")
# ... and what the config adds to them; the learner and the runner look after these.
_DQN_KEYS = frozenset(
    {
        "action_masks",
        "distribution",
        "double_q",
        "epsilon",
        "num_atoms",
        "objective",
        "v_max",
        "v_min",
    }
)


def network_configs(model_config: Any, tree: ObservationTree) -> dict[str, NetworkConfig]:
    """A `network_config` for each leaf's encoder, by path, each as if the leaf was all there is.

    `network` names the convolutions that images get, or "mlp" where nothing is one. Convolutions
    make an image of every leaf that has the axes of one, but for what is too small for them beside
    an image.

    Raises:
        ValueError: A key is unknown, or has no effect on any leaf.
    """
    given = as_mapping(model_config)
    images = {leaf.path: _is_image(leaf, given) for leaf in tree.leaves}
    if any(looks_like_image(leaf) for leaf in tree.leaves if images[leaf.path]):
        images |= {leaf.path: False for leaf in tree.leaves if _is_too_small(leaf, given)}
    is_mixed = len(set(images.values())) > 1
    return {
        path: network_config(given, is_image=is_image, is_mixed=is_mixed)
        for path, is_image in images.items()
    }


def head_config(configs: Mapping[str, NetworkConfig]) -> NetworkConfig:
    """The one whose sizes the head has: an image's, if there is one."""
    images = (each for each in configs.values() if each.network != "mlp")
    return next(images, next(iter(configs.values())))


def network_config(
    model_config: Mapping[str, Any] | DefaultModelConfig | None,
    *,
    is_image: bool,
    is_mixed: bool = False,
) -> NetworkConfig:
    """Read our keys, or RLlib's `DefaultModelConfig` in their place.

    RLlib's `fcnet_hiddens` and `fcnet_activation` (for vectors), `conv_filters` and
    `conv_activation` (for images), `head_fcnet_hiddens` and `head_fcnet_activation` win over
    ours, so that a program written for DQNConfig keeps its network's sizes.

    Args:
        is_image: What is encoded, where `network` does not say so.
        is_mixed: There is the other kind beside it, of which some keys speak.

    Raises:
        ValueError: A key is unknown, or asks for what these networks do not have.
    """
    given = as_mapping(model_config)
    _check_keys(given)
    if is_mixed:
        others = _OF_VECTORS if is_image else _OF_IMAGES
        given = {key: value for key, value in given.items() if key not in others}
    network = given.get("network") or ("nature" if is_image else "mlp")
    if network not in _DEFAULT_SIZES:
        known = ", ".join(map(repr, _DEFAULT_SIZES))
        raise ValueError(f"model_config['network'] must be one of {known}: got {network!r}")
    _check_network(given, network)
    if given.get("scale_encoder_gradient") and not given.get("dueling", Training.dueling):
        raise ValueError(
            "model_config['scale_encoder_gradient'] has no effect on a network that is not "
            "dueling: leave it out, or set `dueling`"
        )
    encoder_hiddens, hiddens = _DEFAULT_SIZES[network]
    settings: dict[str, Any] = {"encoder_hiddens": encoder_hiddens, "hiddens": hiddens}
    settings |= {key: given[key] for key in _names() if given.get(key) is not None}
    settings |= _rllibs_sizes(given, network)
    settings["conv_filters"] = _conv_filters(settings.get("conv_filters", NATURE_FILTERS))
    for sizes in ("encoder_hiddens", "hiddens", "channels"):
        settings[sizes] = _sizes(sizes, settings.get(sizes, IMPALA_CHANNELS))
    _check_layers(given, network, settings)
    if settings.get("image_format") not in (None, *IMAGE_FORMATS):
        raise ValueError(
            f"model_config['image_format'] must be one of {IMAGE_FORMATS}, or None: got "
            f"{settings['image_format']!r}"
        )
    return NetworkConfig(**(settings | {"network": network}))


def _is_image(leaf: Leaf, given: Mapping[str, Any]) -> bool:
    """What a leaf is encoded as."""
    if given.get("network") == "mlp" or leaf.categories is not None:
        return False
    is_asked = any(given.get(key) is not None for key in ("network", "conv_filters", "channels"))
    has_axes = len(leaf.shape) in (3, 4) or (len(leaf.shape) == 2 and leaf.dtype == np.uint8)
    return (is_asked and has_axes) or looks_like_image(leaf)


def _is_too_small(leaf: Leaf, given: Mapping[str, Any]) -> bool:
    """For the convolutions, and of no camera's size."""
    if (given.get("network") or "nature") != "nature" or looks_like_image(leaf):
        return False
    filters = _conv_filters(given.get("conv_filters") or NATURE_FILTERS)
    return is_smaller(leaf, given.get("image_format"), smallest_side(filters))


def as_mapping(model_config: Any) -> dict[str, Any]:
    """A `model_config` as a dict, also of RLlib's dataclass."""
    if dataclasses.is_dataclass(model_config) and not isinstance(model_config, type):
        return dataclasses.asdict(model_config)
    return dict(model_config or {})


def _rllibs_sizes(given: Mapping[str, Any], network: str) -> dict[str, Any]:
    """RLlib's names as settings of ours.

    Who gives one of them describes RLlib's network: of the others RLlib's defaults hold, unless
    they are given by our names.
    """
    names = _RLLIB_HEAD_NAMES | (_RLLIB_MLP_NAMES if network == "mlp" else _RLLIB_CNN_NAMES)
    defaults = DefaultModelConfig()
    sizes = {
        ours: given[rllibs]
        for ours, rllibs in names.items()
        if given.get(rllibs) is not None
        and not (given.get(ours) is not None and given[rllibs] == getattr(defaults, rllibs))
    }
    # `conv_filters` is a name of ours as well.
    if sizes.keys() - {"conv_filters"}:
        for ours, rllibs in names.items():
            default = getattr(defaults, rllibs)
            if given.get(ours) is None and given.get(rllibs) is None and default is not None:
                sizes[ours] = default
        if network != "mlp" and given.get("encoder_hiddens") is None:
            sizes["encoder_hiddens"] = ()
    return sizes


def _check_network(given: Mapping[str, Any], network: str) -> None:
    """Settings of another kind of network than this."""
    defaults = dataclasses.asdict(DefaultModelConfig())
    foreign = [key for key in _OF_OTHERS[network] if given.get(key) not in (None, False)]
    if network != "impala" and given.get("width", Network.width) != Network.width:
        foreign.append("width")
    if network == "mlp":
        hint = "give observations that are images, or set `network` to 'nature' or 'impala'"
    elif foreign:
        other = "impala" if network == "nature" else "nature"
        hint = f"set `network` to {other!r}"
    else:
        keys = ("fcnet_hiddens", "fcnet_activation")
        foreign = [key for key in keys if given.get(key, defaults[key]) != defaults[key]]
        hint = "set `network` to 'mlp', or `encoder_hiddens` for layers behind the convolutions"
    for key in foreign:
        raise ValueError(
            f"model_config[{key!r}] = {given[key]!r} has no effect on the network {network!r}: "
            f"leave it out, {hint}"
        )


def _check_layers(given: Mapping[str, Any], network: str, settings: Mapping[str, Any]) -> None:
    """What speaks of layers that the network does not have."""
    has_dense = bool(settings["encoder_hiddens"])
    absent = {
        "convolutions": _OF_CONVOLUTIONS if network == "mlp" else (),
        "dense layers before the streams": () if has_dense else _OF_DENSE_LAYERS,
    }
    for layers, keys in absent.items():
        for key in sorted(key for key in keys if given.get(key) is not None):
            raise ValueError(
                f"model_config[{key!r}] = {given[key]!r} has no effect on the network {network!r}, "
                f"which has no {layers}: leave it out"
            )
    activation = settings.get("activation", Network.activation)
    if network == "impala" and not has_dense and activation != Network.activation:
        raise ValueError(
            f"the activation {activation!r} has no effect on the network 'impala', whose "
            "convolutions have 'relu' (Espeholt et al. 2018): leave it out, or set "
            "`encoder_hiddens` for layers behind them, which have it"
        )


def _names() -> list[str]:
    return [field.name for field in dataclasses.fields(NetworkConfig)]


def _check_keys(given: Mapping[str, Any]) -> None:
    rllib_defaults = dataclasses.asdict(DefaultModelConfig())
    taken = {*_RLLIB_MLP_NAMES.values(), *_RLLIB_CNN_NAMES.values(), *_RLLIB_HEAD_NAMES.values()}
    known = {*_names(), *rllib_defaults, *_DQN_KEYS}
    for key, value in given.items():
        if key not in known:
            hint = did_you_mean(key, known, f"ours are {', '.join(_names())}")
            raise ValueError(f"model_config has no key {key!r}{hint}")
        silent = key in taken | INITIALIZER_KEYS or key.startswith(_WITHOUT_MEANING)
        if key in rllib_defaults and not silent and value != rllib_defaults[key]:
            raise ValueError(
                f"model_config[{key!r}] = {value!r} is not supported by ApexDQNModule; leave it "
                "out, or give a module of your own in `config.rl_module(rl_module_spec=...)`"
            )
    for key in _RULES.keys() & given.keys():
        problem = _RULES[key].problem(f"model_config[{key!r}]", given[key])
        if problem is not None and given[key] is not None:
            raise ValueError(problem)
    check_initializers(given)


def _sizes(name: str, sizes: Any) -> tuple[int, ...]:
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise ValueError(f"model_config[{name!r}] must be integers >= 1: got {sizes!r}")
    return sizes


def _conv_filters(filters: Any) -> ConvFilters:
    try:
        rows = [
            (int(channels), _side(kernel), _side(stride)) for channels, kernel, stride in filters
        ]
    except (TypeError, ValueError):
        rows = []
    if not rows or min(min(row) for row in rows) < 1:
        raise ValueError(
            f"model_config['conv_filters'] must be [channels, kernel, stride] rows: got {filters!r}"
        )
    return tuple(rows)


def _side(size: Any) -> int:
    """Of a square, which RLlib may give as two numbers."""
    if isinstance(size, (list, tuple)):
        side, other = size
        if side != other:
            raise ValueError("no square")
        return int(side)
    return int(size)
