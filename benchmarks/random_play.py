# SPDX-License-Identifier: MIT
"""What random play returns in each game of MinAtar: the zero of normalised scores.

    python -m benchmarks.random_play

Games are those of configs/minatar/base.yaml, one after the other, every action equally probable.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.report import describe_machine, table
from benchmarks.suite import GAMES
from rllib_per.envs.minatar import MinAtarGame
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.intervals import Interval

CONFIG = Path("configs/minatar/base.yaml")


def random_returns(game: str, num_episodes: int, seed: int) -> list[float]:
    """The returns of so many games."""
    environment = load_experiment(CONFIG, (f"environment.env_config.game={game}",)).environment
    env = MinAtarGame(**environment.env_config)
    env.action_space.seed(seed)
    returns = []
    for episode in range(num_episodes):
        env.reset(seed=seed if episode == 0 else None)
        total, is_over = 0.0, False
        while not is_over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, is_over = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(describe_machine())
    rows = []
    for game in GAMES:
        returns = random_returns(game, arguments.episodes, arguments.seed)
        row = [game, Interval.of(returns).text(2), f"{np.median(returns):g}", str(len(returns))]
        rows.append(row)
    print(table(["random play", "return", "median", "games"], rows))


if __name__ == "__main__":
    main()
