# SPDX-License-Identifier: MIT
"""Return and length of every training episode, out of RLlib's results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

FINISHED_EPISODES = "finished_episodes"


class EpisodeLog(RLlibCallback):  # type: ignore[misc]
    """Brings every episode's return and length into the result, for the learning curve."""

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        value = (episode.get_return(), len(episode))
        metrics_logger.log_value(FINISHED_EPISODES, value, reduce="item_series")


def pop_episodes(result: dict[str, Any]) -> list[tuple[float, int]]:
    """Return and length of every episode that ended in the iteration."""
    episodes = result.get(ENV_RUNNER_RESULTS, {}).pop(FINISHED_EPISODES, [])
    return [episodes] if isinstance(episodes, tuple) else episodes  # RLlib unpacks a series of one.


def spread(
    episodes: list[tuple[float, int]], begin: int, end: int
) -> Iterator[tuple[int, float, int]]:
    """Give the episodes of one iteration env steps between its begin and end, in their order."""
    for number, (episode_return, length) in enumerate(episodes, start=1):
        steps = begin + (end - begin) * number // len(episodes)
        yield steps, float(episode_return), int(length)
