# SPDX-License-Identifier: MIT
"""What is learned in equal time: ApexDQN, and RLlib's DQN with its own replay buffer and with ours.

    make bench-equal-time        # MinAtar's Breakout; ends when ApexDQN has 500,000 env steps

All live in this process, with the settings of configs/minatar/per.yaml and the squared loss, and
whichever has trained for less time goes on, an iteration at a time, so that other work on the
machine slows all. The training return is the mean of an algorithm's last 100 games, played with ε
of its own env steps. RLlib's network gets planes last, as 0 and 1 in float32, as its CNN takes
them.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
import yaml
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from benchmarks.report import describe_machine, table
from rllib_per import ApexDQNConfig
from rllib_per.envs.minatar import MinAtarGame

SETTINGS = yaml.safe_load(Path("configs/minatar/per.yaml").read_text())
SETTINGS["training"]["td_error_loss_fn"] = "mse"  # As MinAtar's DQN has it.
EVIDENCE = Path("benchmarks/evidence/equal-time")
# Of each side: its replay buffer, and the env steps of an iteration.
SIDES = {
    "RLlib": ("PrioritizedEpisodeReplayBuffer", 1000),
    "RLlib, our buffer": ("rllib_per.FastPrioritizedEpisodeReplayBuffer", 1000),
    "ApexDQN": ("prioritized", 5000),
}
QUARTERS = 4


class PlanesLast(gym.ObservationWrapper[Any, Any, Any]):
    """(10, 10, planes) float32 of 0 and 1."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        planes, height, width = env.observation_space.shape or ()
        self.observation_space = gym.spaces.Box(0.0, 1.0, (height, width, planes), np.float32)

    def observation(self, observation: Any) -> Any:
        return observation.transpose(1, 2, 0).astype(np.float32) / np.float32(255)


def build(side: str, seed: int, n_step: int) -> Any:
    """An algorithm with the settings of per.yaml, but for `n_step`."""
    training = {**SETTINGS["training"], "n_step": n_step}
    replay = {key: value for key, value in SETTINGS["replay"].items() if key != "type"}
    model = SETTINGS["model"]
    ratio, epsilon = training.pop("replay_ratio"), training["epsilon"]
    replay["type"], turn = SIDES[side]
    if side != "ApexDQN":
        config = DQNConfig().environment("planes-last")
        training["epsilon"] = [(0, epsilon["initial"]), (epsilon["steps"], epsilon["final"])]
        # RLlib's beta is one number: where ours begins.
        replay["beta"] = replay["beta"]["initial"]
        training["training_intensity"] = ratio
        network: Any = DefaultModelConfig(
            conv_filters=model["conv_filters"], head_fcnet_hiddens=model["hiddens"]
        )
    else:
        env_config = SETTINGS["environment"]["env_config"]
        config = ApexDQNConfig().environment("rllib_per/MinAtar-v1", env_config=env_config)
        training["replay_ratio"] = ratio
        network = model
    config.env_runners(num_env_runners=0, **SETTINGS["env_runners"])
    config.training(**training, replay_buffer_config=replay)
    config.reporting(
        min_sample_timesteps_per_iteration=turn, metrics_num_episodes_for_smoothing=100
    )
    config.debugging(seed=seed, log_level="ERROR")
    return config.rl_module(model_config=network).build_algo()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env-steps", type=int, default=SETTINGS["stop"]["env_steps"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-step", type=int, default=SETTINGS["training"]["n_step"])
    arguments = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    env_config = SETTINGS["environment"]["env_config"]
    register_env("planes-last", lambda _: PlanesLast(MinAtarGame(**env_config)))
    algorithms = {side: build(side, arguments.seed, arguments.n_step) for side in SIDES}
    curves: dict[str, list[tuple[float, int, float]]] = {side: [(0.0, 0, 0.0)] for side in SIDES}
    while curves["ApexDQN"][-1][1] < arguments.env_steps:
        side = min(SIDES, key=lambda name: curves[name][-1][0])
        start = time.perf_counter()
        result = algorithms[side].train()["env_runners"]
        seconds = curves[side][-1][0] + time.perf_counter() - start
        env_steps = int(result["num_env_steps_sampled_lifetime"])
        curves[side].append((seconds, env_steps, result.get("episode_return_mean", 0.0)))
    for algorithm in algorithms.values():
        algorithm.stop()
    ray.shutdown()
    save(curves, f"breakout-n_step{arguments.n_step}-{arguments.seed}.csv")
    print(describe_machine())
    print(report(curves))


def report(curves: dict[str, list[tuple[float, int, float]]]) -> str:
    """Env steps and training return of each, at quarters of the time."""
    end = min(curve[-1][0] for curve in curves.values())
    rows = []
    for quarter in range(1, QUARTERS + 1):
        limit = end * quarter / QUARTERS
        row = [f"{limit:,.0f}"]
        for side in SIDES:
            _, env_steps, training_return = [row for row in curves[side] if row[0] <= limit][-1]
            row += [f"{env_steps:,}", f"{training_return:.1f}"]
        rows.append(row)
    header = [f"{side}, {what}" for side in SIDES for what in ("env steps", "training return")]
    return table(["seconds of each", *header], rows)


def save(curves: dict[str, list[tuple[float, int, float]]], name: str) -> None:
    """Every iteration as CSV."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    with (EVIDENCE / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["side", "seconds", "env_steps", "training_return"])
        for side in SIDES:
            for seconds, env_steps, training_return in curves[side][1:]:
                writer.writerow([side, f"{seconds:.2f}", env_steps, f"{training_return:.2f}"])


if __name__ == "__main__":
    main()
