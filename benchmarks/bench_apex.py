# SPDX-License-Identifier: MIT
"""Asynchronous Ape-X against RLlib's DQN, our own local loop, eager priorities, more shards.

    make bench-apex

In each contest all sides have the same network, batch, n_step, environments and replay ratio, and,
where they have any, the same number of env runners with fragments of the same length. They are
built together and take turns; the idle ones wait. Ratios are of the turns of one round. Every
process gets one thread of PyTorch.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import ray
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from benchmarks.bench_runner import CNN, make_stock_pong
from benchmarks.report import describe_machine, table
from rllib_per import ApexDQNConfig

RUNNERS, BATCH_SIZE = 2, 32
SHARDED = {"type": "sharded", "num_shards": 1, "shard_num_cpus": 0.1}
EAGER = {"priority_flush_updates": 1}

COUNTERS = ("num_priority_calls_lifetime", "num_priority_bytes_lifetime")


@dataclass(frozen=True)
class Game:
    """What is played, how much of it between two reports, and by what network.

    Attributes:
        envs: Environments per env runner.
        rows: Rows of a fragment.
        ratio: Transitions trained per transition added.
        steps: Env steps per iteration, and before learning.
    """

    name: str
    envs: int
    rows: int
    ratio: float
    steps: int
    capacity: int = 50_000

    @property
    def is_pong(self) -> bool:
        return self.name == "Pong"


CARTPOLE = Game("CartPole", envs=8, rows=20, ratio=1.0, steps=2000)
PONG = Game("Pong", envs=1, rows=8, ratio=8.0, steps=200, capacity=5000)


# -- the sides -------------------------------------------------------------------------------


def stock(game: Game) -> Any:
    """RLlib's DQN with env runners.

    Its training intensity counts one env runner more than there are, so it is given less.
    """
    config = _common(DQNConfig(), game).env_runners(num_env_runners=RUNNERS)
    config.training(training_intensity=game.ratio * RUNNERS / (RUNNERS + 1))
    model = DefaultModelConfig(**CNN) if game.is_pong else DefaultModelConfig(**_mlp())
    config.rl_module(model_config=model)
    return config.environment("stock-pong" if game.is_pong else "CartPole-v1")


def ours(game: Game, runners: int = RUNNERS, **replay: Any) -> Any:
    """ApexDQN: asynchronous with `replay` in shards, else local with all environments."""
    config = _common(ApexDQNConfig(), game)
    envs = game.envs if runners else RUNNERS * game.envs
    config.env_runners(num_env_runners=runners, num_envs_per_env_runner=envs)
    config.training(replay_ratio=game.ratio, replay_buffer_config=replay, broadcast_interval=4)
    if game.is_pong:
        pong = {"game": "pong", "protocol": "machado2018"}
        config.environment("rllib_per/Atari-v1", env_config=pong)
        return config.rl_module(model_config={"network": "nature", **CNN})
    return config.environment("CartPole-v1").rl_module(model_config=DefaultModelConfig(**_mlp()))


def _common(config: Any, game: Game) -> Any:
    return (
        config.env_runners(num_envs_per_env_runner=game.envs, rollout_fragment_length=game.rows)
        .training(
            lr=5e-4,
            n_step=3,
            train_batch_size_per_learner=BATCH_SIZE,
            target_network_update_freq=500,
            num_steps_sampled_before_learning_starts=game.steps,
            replay_buffer_config={"capacity": game.capacity},
        )
        .reporting(min_sample_timesteps_per_iteration=game.steps)
        .debugging(seed=0, log_level="ERROR")
    )


def _mlp() -> dict[str, Any]:
    return {"fcnet_hiddens": [256, 256]}


# -- turns -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """What happened in one turn of one side."""

    seconds: float
    env_steps: float
    updates: float
    priority_calls: float
    priority_bytes: float


class Side:
    """One algorithm at work; `play` is its turn."""

    def __init__(self, config: Any) -> None:
        self._algorithm = config.build_algo()
        self.turns: list[Turn] = []
        while not self._counts()[1]:  # Warm up, past the start of learning.
            self._algorithm.train()
        self._algorithm.train()

    def play(self, seconds: float) -> None:
        before, start = self._counts(), time.perf_counter()
        while time.perf_counter() - start < seconds:
            self._algorithm.train()
        took = time.perf_counter() - start
        counts = (now - was for now, was in zip(self._counts(), before, strict=True))
        self.turns.append(Turn(took, *counts))

    def stop(self) -> None:
        self._algorithm.stop()

    def median(self, figure: Callable[[Turn], float]) -> float:
        return median(map(figure, self.turns))

    def _counts(self) -> tuple[float, ...]:
        peek = self._algorithm.metrics.peek
        trained = peek(("learners", "__all_modules__", "num_env_steps_trained_lifetime"), default=0)
        replay = self._algorithm.replay.metrics() if hasattr(self._algorithm, "replay") else {}
        return (
            peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0),
            trained / BATCH_SIZE,
            *(replay.get(name, 0.0) for name in COUNTERS),
        )


def updates_per_s(turn: Turn) -> float:
    return turn.updates / turn.seconds


HEADER = [
    "game", "side", "env steps/s", "updates/s", "updates/s against the first, min", "median",
    "trained per env step", "priority calls per update", "priority bytes per update",
]  # fmt: skip


def contest(game: Game, configs: dict[str, Any], seconds: float, repeats: int) -> list[list[str]]:
    """Rows of the table: the first side is what the others are compared with."""
    sides = {}
    try:
        for name, config in configs.items():
            sides[name] = Side(config)
        for _ in range(repeats):
            for side in sides.values():
                side.play(seconds)
    finally:
        for side in sides.values():
            side.stop()
    first = next(iter(sides.values()))
    return [_row(game, name, side, first) for name, side in sides.items()]


def _row(game: Game, name: str, side: Side, first: Side) -> list[str]:
    ratios = [
        updates_per_s(turn) / updates_per_s(other)
        for turn, other in zip(side.turns, first.turns, strict=True)
    ]
    return [
        game.name,
        name,
        f"{side.median(lambda turn: turn.env_steps / turn.seconds):,.0f}",
        f"{side.median(updates_per_s):,.1f}",
        f"{min(ratios):.2f}",
        f"{median(ratios):.2f}",
        f"{side.median(lambda turn: turn.updates * BATCH_SIZE / turn.env_steps):.2f}",
        f"{side.median(lambda turn: turn.priority_calls / turn.updates):.2f}",
        f"{side.median(lambda turn: turn.priority_bytes / turn.updates):.0f}",
    ]


def contests(game: Game) -> dict[str, dict[str, Any]]:
    """For each question the configurations that answer it."""
    sharded = {**SHARDED, "capacity": game.capacity}
    local = {"type": "prioritized", "capacity": game.capacity}
    two = sharded | {"num_shards": 2}
    return {
        "rllib": {"RLlib DQN": stock(game), "Ape-X": ours(game, **sharded)},
        "local": {"local": ours(game, 0, **local), "Ape-X": ours(game, **sharded)},
        "lazy": {"eager": ours(game, **two, **EAGER), "lazy": ours(game, **two)},
        "shards": {
            f"{shards} shards": ours(game, **sharded | {"num_shards": shards})
            for shards in (1, 2, 4)
        },
    }


TITLES = {
    "rllib": f"Against RLlib's DQN, {RUNNERS} env runners each",
    "local": "Against our own loop in one process, with as many environments",
    "lazy": "TD errors sent after every update, or lazily (2 shards)",
    "shards": "Replay shards",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn, at least")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--only", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--games", nargs="+", default=["CartPole", "Pong"])
    arguments = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    # More CPUs than there are, or Ray would not place all sides of a contest at once.
    ray.init("local", include_dashboard=False, num_cpus=32, log_to_driver=False)
    register_env("stock-pong", make_stock_pong)
    print(describe_machine())
    for key in arguments.only:
        print(f"\n### {TITLES[key]}\n", flush=True)
        rows = []
        for game in (CARTPOLE, PONG):
            if game.name in arguments.games:
                configs = contests(game)[key]
                rows += contest(game, configs, arguments.seconds, arguments.repeats)
        print(table(HEADER, rows), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
