# SPDX-License-Identifier: MIT
"""Which extras, and how many GPUs, an experiment or a search needs: told by its YAML alone."""

from __future__ import annotations

from typing import Any

from rllib_per.envs.packages import package_of
from rllib_per.experiments.yaml_source import value_at
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.rules import rules_of

_ENV = ("environment", "env")
_VIDEO = ("evaluation", "video_interval_env_steps")
_SEARCH = ("tune", "search", "type")
_LEARNERS, _GPUS = ("learners", "num_learners"), ("learners", "num_gpus_per_learner")


def needed_extras(data: Any) -> dict[str, str]:
    """Extras by name, each with the key and value that asks for it; `data` may be wrong YAML."""
    env, video, search = (value_at(data, path) for path in (_ENV, _VIDEO, _SEARCH))
    package = package_of(env) if isinstance(env, str) else None
    needed = {}
    if package is not None:
        needed[package.extra] = f"environment.env = {env}"
    if video is not None:
        needed["video"] = f"evaluation.video_interval_env_steps = {video}"
    if search == "optuna":
        needed["tune"] = "tune.search.type = optuna"
    return needed


def needed_gpus(data: Any) -> float:
    """How many GPUs all learners need; 0 where `data` is wrong YAML."""
    learners, gpus = (value_at(data, path) for path in (_LEARNERS, _GPUS))
    if gpus is None or not rules_of(LearnerSettings)[_GPUS[-1]].admits(gpus):
        return 0
    return float(gpus) * max(learners if isinstance(learners, int) else 1, 1)
