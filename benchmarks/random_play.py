# SPDX-License-Identifier: MIT
"""What random play returns: the zero of MinAtar's normalised scores, and Space Invaders.

    python -m benchmarks.random_play

Environments are as the experiments evaluate in; every action is equally probable.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.report import describe_machine, table
from benchmarks.suite import GAMES
from rllib_per.actions import num_actions
from rllib_per.experiments.evaluation import GreedyPolicy, play_episodes
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.intervals import Interval

NUM_ENVS = 10
# A config and what is changed there, by the name of its row.
PLAYED = {
    game: ("configs/minatar/base.yaml", (f"environment.env_config.game={game}",)) for game in GAMES
} | {
    "Space Invaders, 42 × 42": ("configs/atari/space_invaders_small.yaml", ()),
    "Space Invaders, the tutorial": ("configs/seeds/space_invaders.yaml", ()),
}


def random_returns(
    config: str, settings: tuple[str, ...], num_episodes: int, seed: int
) -> list[float]:
    """The returns of so many games."""
    policy = GreedyPolicy(load_experiment(Path(config), settings))
    env = policy.make_env(min(NUM_ENVS, num_episodes))
    actions, rng = num_actions(env.single_action_space), np.random.default_rng(seed)
    try:
        return play_episodes(
            env,
            lambda _: rng.integers(actions, size=env.num_envs),
            num_episodes,
            seed,
            max_length=policy.max_length(env),
        ).returns
    finally:
        env.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of the rows")
    arguments = parser.parse_args()
    print(describe_machine())
    rows = []
    for name, (config, settings) in PLAYED.items():
        if arguments.only in name:
            returns = random_returns(config, settings, arguments.episodes, arguments.seed)
            number, median = str(len(returns)), f"{np.median(returns):g}"
            rows.append([name, Interval.of(returns).text(2), median, number])
    print(table(["random play", "return", "median", "games"], rows))


if __name__ == "__main__":
    main()
