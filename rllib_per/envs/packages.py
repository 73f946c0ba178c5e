# SPDX-License-Identifier: MIT
"""Packages whose environments Gymnasium knows only once they are imported, each an extra here."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym

from rllib_per.extras import import_extra


class Package(NamedTuple):
    """One of them.

    Attributes:
        prefix: Of the ids of its environments.
        module: Has them registered when it is imported, or by its `register_envs`.
        extra: Brings it.
    """

    prefix: str
    module: str
    extra: str


_PACKAGES = (
    Package("ALE/", "ale_py", "atari"),
    Package("rllib_per/Atari-", "ale_py", "atari"),
    Package("MinAtar/", "minatar.gym", "minatar"),
    Package("rllib_per/MinAtar-", "minatar", "minatar"),
    Package("MiniGrid-", "minigrid", "minigrid"),
    Package("BabyAI-", "minigrid", "minigrid"),
)


def package_of(env_id: str) -> Package | None:
    """The package that has the environment `id`, or `module:id`; None: another one, or none."""
    name = env_id.rpartition(":")[2]
    return next((package for package in _PACKAGES if name.startswith(package.prefix)), None)


def register_package(env_id: str) -> None:
    """Let the package of an id register its environments, if it is one of these.

    Raises:
        ImportError: It is not installed; the message names the extra that brings it.
    """
    package = package_of(env_id)
    if package is None:
        return
    module = import_extra(package.extra, package.module, env_id)
    is_known = any(known.startswith(package.prefix) for known in gym.registry)
    if not is_known and hasattr(module, "register_envs"):
        module.register_envs()
