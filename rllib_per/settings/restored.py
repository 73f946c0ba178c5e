# SPDX-License-Identifier: MIT
"""What of `training` must be as it was when a checkpoint is restored into other settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Optimizers keep another array of every weight with these.
_MOMENTS = ("amsgrad", "momentum", "centered")


def kept_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say what a network's outputs mean, and what an optimizer remembers.

    The weights' names and shapes may not tell.

    Args:
        settings: Of `training`, as they stand in YAML.
    """
    names = ("num_atoms", "v_min", "v_max", "noisy")
    distribution, optimizer = settings["distribution"], settings["optimizer"]
    outputs = None
    if distribution is not None:
        named = ("type", "num_quantiles")
        outputs = {key: distribution[key] for key in named if key in distribution}
    moments = {name: True for name in _MOMENTS if optimizer.get(name)}
    return {name: settings[name] for name in names} | {
        "distribution": outputs,
        "optimizer": {"type": optimizer["type"], **moments},
    }


def check_kept(saved: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
    """Raise ValueError if a checkpoint of other `kept_settings` is to be restored.

    Args:
        saved: Of the checkpoint; what it does not say is taken to be as here.
        settings: Of `training`.
    """
    for name, own in kept_settings(settings).items():
        there = own if saved is None else saved.get(name, own)
        if there != own:
            what = "what the optimizer remembers" if name == "optimizer" else "what outputs mean"
            raise ValueError(
                f"`{name}` must be as in the checkpoint, since it says {what}: got {own!r}, and "
                f"{there!r} there; set it to that, or begin with new weights"
            )
