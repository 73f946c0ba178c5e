# SPDX-License-Identifier: MIT
"""Whether a replay buffer has room for the windows of all environments at once."""

from __future__ import annotations

import numpy as np

from rllib_per.settings.algorithm import RunnerSettings
from rllib_per.settings.replay import AnyReplay, Prioritized, Sharded, TransitionSettings


def check_room(
    replay: AnyReplay, transitions: TransitionSettings, longest_stack: int, runners: RunnerSettings
) -> None:
    """Environments share a ring of rows: with fewer rows than their windows have together, each is
    overwritten before it is complete; and a fragment must fit in.

    Args:
        longest_stack: Frames of an observation.

    Raises:
        ValueError: There is no room, of `capacity`, or of a shard's share of it.
    """
    if not isinstance(replay, Prioritized):
        return
    num_shards = replay.num_shards if isinstance(replay, Sharded) else 1
    of_all, of_one = runners.num_envs_total, runners.num_envs_per_env_runner
    window = int(np.max(transitions.n_step)) + longest_stack
    fragment = runners.num_rows + 1 if runners.is_columnar else 0
    least = max(_share(of_all, num_shards) * window, _share(of_one, num_shards) * fragment)
    if replay.capacity // num_shards < least:
        of_each = f" in each of {num_shards} shards" if num_shards > 1 else ""
        raise ValueError(
            f"capacity must be at least {least} rows{of_each}: got {replay.capacity} for "
            f"{of_all} environments, n_step of {transitions.n_step}, {longest_stack} frames to an "
            f"observation and rollout_fragment_length of {runners.num_rows}; raise it, or lower "
            "one of these"
        )


def _share(num_envs: int, num_shards: int) -> int:
    return -(-num_envs // num_shards)
