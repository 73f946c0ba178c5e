# SPDX-License-Identifier: MIT
"""Which settings must be as they were when a checkpoint is restored into others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rllib_per.settings.algorithm import Settings
from rllib_per.settings.section import as_dict

# Optimizers keep another array of every weight with these.
_MOMENTS = ("amsgrad", "momentum", "centered")


_WHY = {
    "optimizer": "what the optimizer remembers",
    "clip_rewards": "in which unit rewards and values are",
}


def kept_settings(settings: Settings) -> dict[str, Any]:
    """Those that say what outputs and rewards mean, and what an optimizer remembers.

    The weights' names and shapes may not tell.
    """
    training = as_dict(settings.training)
    names = ("num_atoms", "v_min", "v_max", "noisy")
    distribution, optimizer = training["distribution"], training["optimizer"]
    outputs = None
    if distribution is not None:
        named = ("type", "num_quantiles")
        outputs = {key: distribution[key] for key in named if key in distribution}
    kind = "adam" if optimizer["type"] == "adamw" else optimizer["type"]  # They remember the same.
    moments = {name: True for name in _MOMENTS if optimizer.get(name)}
    return {name: training[name] for name in names} | {
        "distribution": outputs,
        "optimizer": {"type": kind, **moments},
        "clip_rewards": settings.transitions.reward_clip,
    }


def check_kept(saved: Mapping[str, Any] | None, settings: Settings) -> None:
    """Raise ValueError if a checkpoint of other `kept_settings` is to be restored.

    Args:
        saved: Of the checkpoint; what it does not say is taken to be as here.
        settings: Those to restore it into.
    """
    for name, own in kept_settings(settings).items():
        there = own if saved is None else saved.get(name, own)
        if there != own:
            raise ValueError(
                f"`{name}` must be as in the checkpoint, since it says "
                f"{_WHY.get(name, 'what outputs mean')}: got {own!r}, and {there!r} there; set it "
                "to that, or begin with new weights"
            )
