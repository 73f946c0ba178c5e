# SPDX-License-Identifier: MIT
"""End to end: ApexDQN against RLlib's DQN, local, at equal training intensity.

    make bench-train        # CartPole-v1, then Pong with the Nature CNN

Both algorithms live in this process and take turns, one iteration of `--steps` env steps each,
with the same network, batch, n_step, fragment length and replay ratio. Reported are env steps per
second, the ratio of each pair of turns, and where the milliseconds of an update go.
"""

from __future__ import annotations

import argparse
import logging
import time
from statistics import median
from typing import Any

import ray
import torch
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from benchmarks.bench_runner import make_stock_pong
from benchmarks.report import describe_machine, table
from rllib_per import ApexDQNConfig

LEARNING_STARTS = 1000
MLP = DefaultModelConfig(fcnet_hiddens=[256, 256])
CNN = {"conv_filters": [[32, 8, 4], [64, 4, 2], [64, 3, 1]], "head_fcnet_hiddens": [512]}


def cartpole(config_class: type, num_envs: int, steps: int) -> Any:
    """Three-step returns, batches of 32, five rows per environment and update."""
    config = common(config_class, num_envs, steps).environment("CartPole-v1")
    config.env_runners(rollout_fragment_length=5)
    config.training(n_step=3, num_steps_sampled_before_learning_starts=LEARNING_STARTS)
    return config.rl_module(model_config=MLP).build_algo()


def pong(config_class: type, num_envs: int, steps: int) -> Any:
    """The Nature CNN on 84×84 frames, batches of 32, four rows per environment and update."""
    config = common(config_class, num_envs, steps)
    if config_class is DQNConfig:
        config.environment("stock-pong")
    else:
        config.environment(
            "rllib_per/Atari-v1", env_config={"game": "pong", "protocol": "machado2018"}
        )
    config.env_runners(rollout_fragment_length=4)
    config.training(n_step=3, num_steps_sampled_before_learning_starts=steps)
    config.training(replay_buffer_config={"capacity": 5000})
    model = DefaultModelConfig(**CNN) if config_class is DQNConfig else {"network": "nature", **CNN}
    return config.rl_module(model_config=model).build_algo()


def common(config_class: type, num_envs: int, steps: int) -> Any:
    """What both environments share, and both algorithms."""
    return (
        config_class()
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs)
        .training(lr=5e-4, train_batch_size_per_learner=32, target_network_update_freq=500)
        .reporting(min_sample_timesteps_per_iteration=steps)
        .debugging(seed=0, log_level="ERROR")
    )


def train(algorithm: Any) -> tuple[float, float, dict[str, float]]:
    """One iteration: env steps per second, transitions trained per env step, seconds by phase."""
    before = counts(algorithm)
    start = time.perf_counter()
    result = algorithm.train()
    seconds = time.perf_counter() - start
    sampled, trained = (after - was for after, was in zip(counts(algorithm), before, strict=True))
    return sampled / seconds, trained / sampled, result["timers"]


def counts(algorithm: Any) -> tuple[int, int]:
    peek = algorithm.metrics.peek
    return (
        peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0),
        peek(("learners", "__all_modules__", "num_env_steps_trained_lifetime"), default=0),
    )


def compare(
    build: Any, num_envs: int, steps: int, repeats: int
) -> tuple[list[str], list[list[str]]]:
    """Rows of the two tables for `num_envs` environments."""
    algorithms = {"RLlib DQN": build(DQNConfig, num_envs, steps)}
    algorithms["ApexDQN"] = build(ApexDQNConfig, num_envs, steps)
    speeds: dict[str, list[float]] = {name: [] for name in algorithms}
    intensity: dict[str, list[float]] = {name: [] for name in algorithms}
    timers: dict[str, dict[str, float]] = {}
    for algorithm in algorithms.values():  # Warm up, and pass the start of learning.
        for _ in range(1 + max(LEARNING_STARTS // steps, 1) * (build is cartpole)):
            algorithm.train()
    for _ in range(repeats):
        for name, algorithm in algorithms.items():
            speed, ratio, timers[name] = train(algorithm)
            speeds[name].append(speed)
            intensity[name].append(ratio)
    for algorithm in algorithms.values():
        algorithm.stop()
    pairs = [b / a for a, b in zip(speeds["RLlib DQN"], speeds["ApexDQN"], strict=True)]
    name_and_envs = [build.__name__, str(num_envs)]
    row = [
        *name_and_envs,
        *(f"{median(speeds[name]):,.0f}" for name in algorithms),
        f"{min(pairs):.1f}",
        f"{median(pairs):.1f}",
        *(f"{median(intensity[name]):.2f}" for name in algorithms),
    ]
    phases = sorted(
        key for key in timers["ApexDQN"] if key.endswith("_timer") or key == "synch_weights"
    )
    phase_rows = [
        [*name_and_envs, phase, *(_milliseconds(timers[name].get(phase)) for name in algorithms)]
        for phase in phases
    ]
    return row, phase_rows


def _milliseconds(seconds: Any) -> str:
    return "-" if not isinstance(seconds, float) else f"{1e3 * seconds:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--steps", type=int, default=1000, help="env steps per turn")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--pong", action="store_true", help="Pong instead of CartPole")
    arguments = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    register_env("stock-pong", make_stock_pong)
    build = pong if arguments.pong else cartpole
    results = [compare(build, envs, arguments.steps, arguments.repeats) for envs in arguments.envs]
    ray.shutdown()
    print(describe_machine())
    header = ["", "envs", "RLlib env steps/s", "ApexDQN env steps/s", "ratio min", "ratio median"]
    header += ["RLlib trained/sampled", "ApexDQN trained/sampled"]
    print(table(header, [row for row, _ in results]))
    print("\nMilliseconds per call of each phase, in the last turn:\n")
    phase_rows = [row for _, rows in results for row in rows]
    print(table(["", "envs", "phase", "RLlib ms", "ApexDQN ms"], phase_rows))


if __name__ == "__main__":
    main()
