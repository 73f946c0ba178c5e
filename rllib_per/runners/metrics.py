# SPDX-License-Identifier: MIT
"""An env runner's metrics under SingleAgentEnvRunner's keys: counted cheaply, logged on demand."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    EPISODE_DURATION_SEC_MEAN,
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    SAMPLE_TIMER,
    TIME_BETWEEN_SAMPLING,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_per.runners.episode_summary import EpisodeSummary
from rllib_per.settings.algorithm import PlaySettings

# Mean return of the episodes that environments with a low ε played (`per_env_epsilon`).
LOW_EPSILON_RETURN_MEAN = "low_epsilon_episode_return_mean"
# Of an evaluation's episodes, those that were cut at its bound.
NUM_EPISODES_CUT = "num_episodes_cut"


class RunnerMetrics:
    """Counts in plain numbers; RLlib's MetricsLogger, slow per call, is only used in `flush`."""

    def __init__(
        self,
        play: PlaySettings,
        num_env_runners: int,
        logger: MetricsLogger,
        first_low_epsilon_env: int | None,
    ) -> None:
        """
        Args:
            play: What is played.
            num_env_runners: How many do.
            logger: Where `flush` logs to.
            first_low_epsilon_env: Environments from this index on count as nearly greedy.
        """
        self._logger = logger
        self._first_low_epsilon_env = first_low_epsilon_env
        self._in_evaluation = play.in_evaluation
        # RLlib merges the windows of all runners, so each keeps its share.
        window = play.smoothing_window / (num_env_runners or 1)
        self._window = max(1, math.ceil(window))
        self._num_env_steps = 0
        self._episodes: list[EpisodeSummary] = []
        self._times: dict[str, tuple[float, int]] = {}
        self._sampled_at: float | None = None

    def add(self, num_env_steps: int, finished: Iterable[EpisodeSummary]) -> None:
        """Count env steps and finished episodes."""
        self._num_env_steps += num_env_steps
        self._episodes.extend(finished)

    def add_time(self, key: str, seconds: float, count: int = 1) -> None:
        """Count `count` doings that took `seconds` together; `flush` logs their mean."""
        total_s, total_count = self._times.get(key, (0.0, 0))
        self._times[key] = (total_s + seconds, total_count + count)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Time a call that samples, and how long nobody sampled before it."""
        start = time.perf_counter()
        if self._sampled_at is not None:
            self.add_time(TIME_BETWEEN_SAMPLING, start - self._sampled_at)
        yield
        self._sampled_at = time.perf_counter()
        self.add_time(SAMPLE_TIMER, self._sampled_at - start)

    def flush(self) -> None:
        """Log everything since the last flush."""
        for key, (seconds, count) in self._times.items():
            self._logger.log_value(key, seconds / count)
        self._times.clear()
        self._flush_counts()
        for episode in self._episodes:
            self._flush_episode(episode)
        self._num_env_steps = 0
        self._episodes = []

    def _flush_counts(self) -> None:
        steps, log = self._num_env_steps, self._logger.log_value
        for key in (
            NUM_ENV_STEPS_SAMPLED,
            (NUM_AGENT_STEPS_SAMPLED, DEFAULT_AGENT_ID),
            (NUM_MODULE_STEPS_SAMPLED, DEFAULT_MODULE_ID),
        ):
            log(key, steps, reduce="sum")
        log(NUM_EPISODES, len(self._episodes), reduce="sum")
        num_cut = sum(episode.is_cut for episode in self._episodes)
        if num_cut or self._in_evaluation:
            log(NUM_EPISODES_CUT, num_cut, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum", with_throughput=True)
        for key in (
            (NUM_AGENT_STEPS_SAMPLED_LIFETIME, DEFAULT_AGENT_ID),
            (NUM_MODULE_STEPS_SAMPLED_LIFETIME, DEFAULT_MODULE_ID),
        ):
            log(key, steps, reduce="lifetime_sum")
        log(NUM_EPISODES_LIFETIME, len(self._episodes), reduce="lifetime_sum")

    def _flush_episode(self, episode: EpisodeSummary) -> None:
        length, episode_return, window = len(episode), episode.get_return(), self._window
        log = self._logger.log_value
        log(EPISODE_LEN_MEAN, length, window=window)
        log(EPISODE_RETURN_MEAN, episode_return, window=window)
        log(EPISODE_DURATION_SEC_MEAN, episode.get_duration_s(), window=window)
        log(("agent_episode_return_mean", DEFAULT_AGENT_ID), episode_return, window=window)
        log(("module_episode_return_mean", DEFAULT_MODULE_ID), episode_return, window=window)
        log(EPISODE_LEN_MIN, length, reduce="min", window=window)
        log(EPISODE_RETURN_MIN, episode_return, reduce="min", window=window)
        log(EPISODE_LEN_MAX, length, reduce="max", window=window)
        log(EPISODE_RETURN_MAX, episode_return, reduce="max", window=window)
        first = self._first_low_epsilon_env
        if first is not None and episode.env_index >= first:
            log(LOW_EPSILON_RETURN_MEAN, episode_return, window=window)
