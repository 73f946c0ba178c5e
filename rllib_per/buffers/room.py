# SPDX-License-Identifier: MIT
"""Whether a replay buffer has room for the windows of all environments at once."""

from __future__ import annotations

import numpy as np

from rllib_per.settings.algorithm import RunnerSettings
from rllib_per.settings.replay import AnyReplay, Prioritized, Sharded, TransitionSettings


def missing_room(
    replay: AnyReplay, transitions: TransitionSettings, longest_stack: int, runners: RunnerSettings
) -> str | None:
    """What `capacity` must be, if there is no room; None if there is.

    Environments share a ring of rows: with fewer rows than their windows have together, a window
    may be overwritten before it is complete; and a fragment must fit in.

    Args:
        longest_stack: Frames of an observation.
    """
    if not isinstance(replay, Prioritized):
        return None
    num_shards = replay.num_shards if isinstance(replay, Sharded) else 1
    of_all, of_one = runners.num_envs_total, runners.num_envs_per_env_runner
    window = int(np.max(transitions.n_step)) + longest_stack
    fragment = runners.num_rows + 1 if runners.is_columnar else 0
    least = max(_share(of_all, num_shards) * window, _share(of_one, num_shards) * fragment)
    if replay.capacity // num_shards >= least:
        return None
    of_each = f" in each of {num_shards} shards" if num_shards > 1 else ""
    return (
        f"must be at least {least} rows{of_each}: got {replay.capacity}, for num_envs = {of_all}, "
        f"n_step = {transitions.n_step}, stacks of {longest_stack} and rollout_fragment_length = "
        f"{runners.num_rows}; raise it, or lower one of these"
    )


def _share(num_envs: int, num_shards: int) -> int:
    return -(-num_envs // num_shards)
