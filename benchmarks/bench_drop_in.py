# SPDX-License-Identifier: MIT
"""Stock DQN with one line of its config changed: our replay buffer in RLlib's place.

    make bench-drop-in

First the buffers alone: a batch drawn, its figures asked for and its priorities written back, as
DQN does it. Then RLlib's unchanged DQN on CartPole-v1 with either, in turns of `--steps` env steps
in this process; ratios are of the two turns of one round. With `--curve-seeds 5` also the mean
return by env steps over as many seeds, and whether ours lies in the 95 % interval of RLlib's; with
`--repeats 0` only that.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers import PrioritizedEpisodeReplayBuffer

from benchmarks.curves import Floats, compare, save
from benchmarks.report import describe_machine, table
from rllib_per import FastPrioritizedEpisodeReplayBuffer

CAPACITY, EPISODE_STEPS, N_STEP, GAMMA, ALPHA, BETA = 50_000, 200, 3, 0.99, 0.6, 0.4
LEARNING_STARTS = 1000
EVIDENCE = Path("benchmarks/evidence/drop-in")
TYPES = {
    "RLlib": "PrioritizedEpisodeReplayBuffer",
    "ours": "rllib_per.FastPrioritizedEpisodeReplayBuffer",
}


# -- the buffers alone -----------------------------------------------------------------------


def full_buffers() -> dict[str, Any]:
    """Both kinds, with the same CartPole-like episodes."""
    buffers = {
        "RLlib": PrioritizedEpisodeReplayBuffer(capacity=CAPACITY, alpha=ALPHA),
        # As an algorithm with RLlib's own connectors makes it.
        "ours": FastPrioritizedEpisodeReplayBuffer(CAPACITY, alpha=ALPHA, episodes="batch"),
    }
    rng = np.random.default_rng(0)
    for _ in range(CAPACITY // EPISODE_STEPS - 1):
        episode = SingleAgentEpisode(
            observations=list(rng.standard_normal((EPISODE_STEPS + 1, 4), dtype=np.float32)),
            actions=list(rng.integers(0, 2, EPISODE_STEPS)),
            rewards=[1.0] * EPISODE_STEPS,
            terminated=True,
            len_lookback_buffer=0,
        ).to_numpy()
        for buffer in buffers.values():
            buffer.add([episode])
    return buffers


def round_trip(buffer: Any, size: int) -> None:
    """What DQN does with a buffer for one update."""
    buffer.sample(num_items=size, n_step=N_STEP, gamma=GAMMA, beta=BETA, sample_episodes=True)
    buffer.get_metrics()
    buffer.update_priorities(np.linspace(0.1, 1.0, size, dtype=np.float32), "default_policy")


def bench_buffers(repeats: int) -> list[list[str]]:
    buffers = full_buffers()
    return [
        row(f"sample({size}) + update", "ms", repeats, _milliseconds_of(buffers, size))
        for size in (32, 512)
    ]


def _milliseconds_of(buffers: dict[str, Any], size: int) -> Callable[[str], float]:
    def milliseconds(name: str) -> float:
        start = time.perf_counter()
        for _ in range(5):
            round_trip(buffers[name], size)
        return (time.perf_counter() - start) / 5 * 1e3

    return milliseconds


# -- in stock DQN ----------------------------------------------------------------------------


def build(name: str, num_envs: int, steps: int, seed: int = 0) -> Any:
    """Stock DQN; all that differs is the buffer's type."""
    return (
        DQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_envs_per_env_runner=num_envs)
        .training(
            lr=5e-4,
            n_step=N_STEP,
            gamma=GAMMA,
            num_steps_sampled_before_learning_starts=LEARNING_STARTS,
            replay_buffer_config={
                "type": TYPES[name], "capacity": CAPACITY, "alpha": ALPHA, "beta": BETA,
            },
        )
        .reporting(min_sample_timesteps_per_iteration=steps)
        .debugging(seed=seed, log_level="ERROR")
        .build_algo()
    )  # fmt: skip


def num_steps(algorithm: Any) -> int:
    return algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0)


def bench_dqn(num_envs: int, steps: int, repeats: int) -> list[str]:
    algorithms = {name: build(name, num_envs, steps) for name in TYPES}
    for algorithm in algorithms.values():
        for _ in range(1 + LEARNING_STARTS // steps):
            algorithm.train()

    def speed(name: str) -> float:
        before, start = num_steps(algorithms[name]), time.perf_counter()
        algorithms[name].train()
        return (num_steps(algorithms[name]) - before) / (time.perf_counter() - start)

    result = row(f"stock DQN, {num_envs} env(s)", "env steps/s", repeats, speed)
    for algorithm in algorithms.values():
        algorithm.stop()
    return result


def row(what: str, unit: str, repeats: int, measure: Callable[[str], float]) -> list[str]:
    """Both measured in turns: medians, and how many times faster ours is."""
    figures: dict[str, list[float]] = {name: [] for name in TYPES}
    for _ in range(repeats):
        for name in TYPES:
            figures[name].append(measure(name))
    faster = [a / b for a, b in zip(figures["RLlib"], figures["ours"], strict=True)]
    if unit.endswith("/s"):
        faster = [1.0 / ratio for ratio in faster]
    medians = [f"{median(figures[name]):,.2f}" for name in TYPES]
    return [what, unit, *medians, f"{min(faster):.1f}", f"{median(faster):.1f}"]


# -- learning --------------------------------------------------------------------------------


def learning_curves(seeds: int, env_steps: int, points: int) -> tuple[dict[str, Floats], Floats]:
    """(seeds, points) mean returns of recent episodes, and the env steps of the points."""
    curves: dict[str, list[list[float]]] = {name: [] for name in TYPES}
    for seed in range(seeds):
        for name in TYPES:
            algorithm = build(name, 1, env_steps // points, seed)
            results = [algorithm.train() for _ in range(points)]
            algorithm.stop()
            curves[name].append([r["env_runners"]["episode_return_mean"] for r in results])
    grid = np.arange(1, points + 1) * (env_steps / points)
    return {name: np.array(own) for name, own in curves.items()}, grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, default=1000, help="env steps per turn")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--curve-seeds", type=int, default=0)
    parser.add_argument("--curve-steps", type=int, default=20_000)
    arguments = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(describe_machine())
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    if arguments.repeats:
        rows = bench_buffers(arguments.repeats)
        rows += [bench_dqn(envs, arguments.steps, arguments.repeats) for envs in arguments.envs]
        print(table(["", "unit", *TYPES, "times faster, min", "median"], rows), flush=True)
    if arguments.curve_seeds:
        curves, grid = learning_curves(arguments.curve_seeds, arguments.curve_steps, points=10)
        save(curves, grid, EVIDENCE, "mean return of recent episodes")
        print(compare(curves, [("ours", "RLlib")]))
    ray.shutdown()


if __name__ == "__main__":
    main()
