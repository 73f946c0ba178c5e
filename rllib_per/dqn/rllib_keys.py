# SPDX-License-Identifier: MIT
"""The counts of replay under the names that results of RLlib's DQN have."""

from __future__ import annotations

from collections.abc import Mapping

from rllib_per.dqn.training_clock import Progress

_COUNTED = ("num_env_steps_added", "num_env_steps_sampled", "num_env_steps_evicted")


class RLlibCounts:
    """Remembers the last report, as RLlib reports what happened since, and over the lifetime."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def of(self, replay: Mapping[str, float], progress: Progress) -> dict[str, float]:
        """By RLlib's names, from a buffer's metrics; a transition begins with one env step."""
        stored = replay.get("num_transitions", 0.0)
        added = replay.get("num_transitions_added_lifetime", 0.0)
        lifetime = {
            "num_env_steps_added": added,
            "num_env_steps_sampled": replay.get("num_transitions_sampled_lifetime", 0.0),
            "num_env_steps_evicted": max(added - stored, 0.0),
        }
        # A restored buffer counts on from its checkpoint.
        since = {name: max(lifetime[name] - self._last.get(name, 0.0), 0.0) for name in _COUNTED}
        self._last = lifetime
        return {
            "num_env_steps_stored": stored,
            "num_episodes_added_lifetime": float(progress.episodes),
            **since,
            **{f"{name}_lifetime": count for name, count in lifetime.items()},
        }
