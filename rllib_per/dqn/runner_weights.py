# SPDX-License-Identifier: MIT
"""What weights env runners take: newer ones, and after a restore also older ones."""

from __future__ import annotations

from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup


def let_take_any_weights(group: EnvRunnerGroup | None, timeout_s: float) -> None:
    """Let all runners of `group` take the weights that come next, be they older than theirs.

    They go by RLlib's count of updates, which a restore may set back.
    """
    if group is not None:
        group.foreach_env_runner(_forget_weights, timeout_seconds=timeout_s)


def _forget_weights(runner: Any) -> None:
    runner._weights_seq_no = 0
