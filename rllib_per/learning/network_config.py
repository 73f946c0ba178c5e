# SPDX-License-Identifier: MIT
"""RLlib's `model_config`, and our keys in it, as a NetworkConfig."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per.learning.networks import (
    IMPALA_CHANNELS,
    NATURE_FILTERS,
    ConvFilters,
    NetworkConfig,
)

# Each network's own encoder and stream sizes; the streams' 512 are those of Wang et al. (2016).
_DEFAULT_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mlp": ((256,), (256,)),
    "nature": ((), (512,)),
    "impala": ((), (256,)),
}

# RLlib's names for settings of ours, for vectors and for images.
_RLLIB_MLP_NAMES = {"encoder_hiddens": "fcnet_hiddens", "activation": "fcnet_activation"}
_RLLIB_CNN_NAMES = {"conv_filters": "conv_filters", "activation": "conv_activation"}
_RLLIB_HEAD_NAMES = {"hiddens": "head_fcnet_hiddens", "head_activation": "head_fcnet_activation"}

# RLlib keys that mean nothing for a feed-forward Q-network, whatever their value ...
_WITHOUT_MEANING = ("fusionnet_", "lstm_", "max_seq_len", "free_log_std", "log_std", "vf_share")
# ... and what the config adds to them; the learner and the runner look after these.
_DQN_KEYS = frozenset(
    {"objective", "double_q", "epsilon", "num_atoms", "std_init", "v_min", "v_max"}
)


def network_config(
    model_config: Mapping[str, Any] | DefaultModelConfig | None, *, is_image: bool
) -> NetworkConfig:
    """Read our keys, or RLlib's `DefaultModelConfig` in their place.

    RLlib's `fcnet_hiddens` and `fcnet_activation` (for vectors), `conv_filters` and
    `conv_activation` (for images), `head_fcnet_hiddens` and `head_fcnet_activation` win over
    ours, so that a program written for DQNConfig keeps its network's sizes.

    Raises:
        ValueError: A key is unknown, or asks for what these networks do not have.
    """
    given = (
        dataclasses.asdict(model_config)
        if isinstance(model_config, DefaultModelConfig)
        else dict(model_config or {})
    )
    _check_keys(given)
    network = given.get("network") or ("nature" if is_image else "mlp")
    if network not in _DEFAULT_SIZES:
        known = ", ".join(map(repr, _DEFAULT_SIZES))
        raise ValueError(f"model_config['network'] must be one of {known}: got {network!r}")
    encoder_hiddens, hiddens = _DEFAULT_SIZES[network]
    settings: dict[str, Any] = {"encoder_hiddens": encoder_hiddens, "hiddens": hiddens}
    settings |= {key: given[key] for key in _names() if given.get(key) is not None}
    names = _RLLIB_MLP_NAMES if network == "mlp" else _RLLIB_CNN_NAMES
    for ours, rllibs in (names | _RLLIB_HEAD_NAMES).items():
        if given.get(rllibs) is not None:
            settings[ours] = given[rllibs]
    settings["conv_filters"] = _conv_filters(settings.get("conv_filters", NATURE_FILTERS))
    for sizes in ("encoder_hiddens", "hiddens", "channels"):
        settings[sizes] = _sizes(sizes, settings.get(sizes, IMPALA_CHANNELS))
    return NetworkConfig(**(settings | {"network": network}))


def _names() -> list[str]:
    return [field.name for field in dataclasses.fields(NetworkConfig)]


def _check_keys(given: Mapping[str, Any]) -> None:
    rllib_defaults = dataclasses.asdict(DefaultModelConfig())
    taken = {*_RLLIB_MLP_NAMES.values(), *_RLLIB_CNN_NAMES.values(), *_RLLIB_HEAD_NAMES.values()}
    known = {*_names(), *rllib_defaults, *_DQN_KEYS}
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"ours are {', '.join(_names())}"
            raise ValueError(f"model_config has no key {key!r}; {hint}")
        silent = key in taken or key.startswith(_WITHOUT_MEANING)
        if key in rllib_defaults and not silent and value != rllib_defaults[key]:
            raise ValueError(
                f"model_config[{key!r}] = {value!r} is not supported by ApexDQNModule; leave it "
                "out, or give a module of your own in `config.rl_module(rl_module_spec=...)`"
            )
    atoms = given.get("num_atoms", 1)
    if atoms != 1:
        raise ValueError(
            f"num_atoms must be 1: got {given['num_atoms']}; there are no Q-distributions"
        )


def _sizes(name: str, sizes: Any) -> tuple[int, ...]:
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise ValueError(f"model_config[{name!r}] must be integers >= 1: got {sizes!r}")
    return sizes


def _conv_filters(filters: Any) -> ConvFilters:
    try:
        rows = [(int(channels), int(kernel), int(stride)) for channels, kernel, stride in filters]
    except (TypeError, ValueError):
        rows = []
    if not rows or min(min(row) for row in rows) < 1:
        raise ValueError(
            f"model_config['conv_filters'] must be [channels, kernel, stride] rows: got {filters!r}"
        )
    return tuple(rows)
