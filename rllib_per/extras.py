# SPDX-License-Identifier: MIT
"""The extras of this package: what each brings, and what to say where it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# What is imported of each extra in pyproject.toml that is for use, not for work on this package.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "atari": ("ale_py",),
    "minatar": ("minatar",),
    "minigrid": ("minigrid",),
    "tune": ("optuna",),
    "video": ("imageio", "imageio_ffmpeg", "pygame"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "sb3": ("stable_baselines3",),
    "export": ("onnx", "onnxscript"),
    "cluster": ("opencensus",),
}


# The pygame-ce of one and the pygame of the other replace each other's files; either draws.
_APART = ("minigrid", "video")
_VIDEO_BESIDE_MINIGRID = "imageio imageio-ffmpeg"


def how_to_install(*extras: str) -> str:
    """The command that installs them, from wherever this package was installed."""
    if set(_APART) <= set(extras):
        others = [extra for extra in extras if extra != "video"]
        return f"pip install 'rllib-per[{','.join(others)}]' {_VIDEO_BESIDE_MINIGRID}"
    command = f"pip install 'rllib-per[{','.join(extras)}]'"
    if "video" in extras:
        return f"{command}, or beside `minigrid`: pip install {_VIDEO_BESIDE_MINIGRID}"
    return f"{command}, where `video` is not installed" if "minigrid" in extras else command


def missing(extra: str) -> list[str]:
    """Its modules that are not installed here. Nothing is imported."""
    return [module for module in EXTRAS[extra] if find_spec(module) is None]


def import_extra(extra: str, module: str, who: str) -> Any:
    """A module that an extra brings.

    Args:
        extra: Which.
        module: Its dotted path.
        who: What needs it, for the message.

    Raises:
        ImportError: It is missing, or fails to be imported; the message names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{who} needs {package} ({error}): {how_to_install(extra)}") from error
