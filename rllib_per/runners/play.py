# SPDX-License-Identifier: MIT
"""Playing without recording: what evaluation does with the environments of a runner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rllib_per.runners.collector import Collector
from rllib_per.runners.episode_summary import EpisodeSummary
from rllib_per.runners.own_actions import OwnActions
from rllib_per.schedules import schedule
from rllib_per.settings.algorithm import PlaySettings, Settings

# Gives the collector to play on, its environments reset if they failed or served something else,
# or if asked to.
Begin = Callable[..., Collector]


def default_amount(play: PlaySettings, num_envs: int) -> tuple[int | None, int | None]:
    """RLlib's (num_timesteps, num_episodes) where `sample()` is told neither."""
    if play.num_sample_rows is not None:
        return play.num_sample_rows * num_envs, None
    return None, num_envs


def sampling_epsilon(
    settings: Settings, env_step: int, explore: bool | None, at_random: bool
) -> float:
    """The ε that `sample()` plays with: the schedule's, nothing, or everything at random."""
    if at_random:
        return 1.0
    if not (settings.explore if explore is None else explore):
        return 0.0
    return schedule(settings.training.epsilon)(env_step)


def play_exactly(
    begin: Begin,
    num_episodes: int,
    epsilon: float,
    max_length: int,
    own: OwnActions | None = None,
) -> list[EpisodeSummary]:
    """Exactly `num_episodes` episodes, shared out over the environments beforehand.

    Were the first so many to finish taken, short episodes would be favoured. An environment that
    has played its share goes on until the last is done, and its further episodes do not count. An
    episode is cut after `max_length` env steps. Its environment, which can't be reset alone, then
    idles until those that have episodes left all do, and all are reset.
    """
    num_envs = begin().streams.num_envs
    shares = np.full(num_envs, num_episodes // num_envs)
    shares[: num_episodes % num_envs] += 1
    played: list[EpisodeSummary] = []
    while len(played) < num_episodes:
        collector = begin()
        collector.play_row(epsilon, own)
        streams = collector.streams
        streams.cut(max_length)
        for episode in streams.pop_finished():
            if shares[episode.env_index] > 0:
                shares[episode.env_index] -= 1
                played.append(episode)
        if streams.is_cut[shares > 0].all() and shares.any():
            begin(anew=True)
    return played


def play_steps(
    begin: Begin, num_timesteps: int, epsilon: float, own: OwnActions | None = None
) -> tuple[list[EpisodeSummary], int]:
    """At least `num_timesteps` env steps: the stretches that they make up, and how many they are.

    When an environment fails, what was not returned before is lost, from the count too.
    """
    collector = begin()
    collector.streams.mark()
    num_steps = 0
    while num_steps < num_timesteps:
        num_resets = collector.streams.num_resets_next
        if collector.play_row(epsilon, own):
            num_steps += collector.streams.num_envs - num_resets
        else:
            collector, num_steps = begin(), 0
    return collector.streams.stretches_since_mark(), num_steps
