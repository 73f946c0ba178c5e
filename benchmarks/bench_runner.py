# SPDX-License-Identifier: MIT
"""Collecting experience: ApexEnvRunner against RLlib's SingleAgentEnvRunner and the bare emulator.

    make bench-runner

CartPole and Pong, ε = 0.1, dueling networks of the same sizes: 256 and 256 units, or the Nature
CNN. "stock" is DQNConfig as its users run it: its own module, and for Pong Gymnasium's emulator in
`wrap_atari_for_new_api_stack` (needs opencv-python-headless). "RLlib's runner" gets our module and
our environments, so that only the runners differ. They take turns in this process; ratios are of
the speeds within one round.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import ale_py
import gymnasium as gym
import torch
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.wrappers.atari_wrappers import wrap_atari_for_new_api_stack

from benchmarks.report import describe_machine, table
from rllib_per import ApexDQNConfig
from rllib_per.envs.atari import AtariGames
from rllib_per.runners.env_runner import ApexEnvRunner

# Plays on and returns how many env steps (or reset rows) that were.
Play = Callable[[], int]

EPSILON = 0.1
ATARI = {"game": "pong", "protocol": "machado2018"}
MLP = {"fcnet_hiddens": [256], "head_fcnet_hiddens": [256], "fcnet_activation": "relu"}
CNN = {"conv_filters": [[32, 8, 4], [64, 4, 2], [64, 3, 1]], "head_fcnet_hiddens": [512]}


def config_for(env: str, num_envs: int, **environment: Any) -> ApexDQNConfig:
    is_atari = env == "rllib_per/Atari-v1"
    return (
        ApexDQNConfig()
        .environment(env, env_config=environment)
        .env_runners(
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode="vector_entry_point" if is_atari else "sync",
        )
        .training(epsilon=EPSILON)
        .rl_module(model_config={"network": "nature"} if is_atari else MLP)
        .debugging(seed=0, log_level="ERROR")
    )


def stock_config(env: str, num_envs: int) -> DQNConfig:
    is_atari = env == "rllib_per/Atari-v1"
    return (
        DQNConfig()
        .environment(make_stock_pong if is_atari else env)
        .env_runners(num_envs_per_env_runner=num_envs)
        .training(epsilon=EPSILON)
        .rl_module(model_config=DefaultModelConfig(**(CNN if is_atari else MLP)))
        .debugging(seed=0, log_level="ERROR")
    )


def make_stock_pong(context: Any) -> gym.Env:
    gym.register_envs(ale_py)
    return wrap_atari_for_new_api_stack(gym.make("ALE/Pong-v5", frameskip=1), dim=84, framestack=4)


def ours(config: ApexDQNConfig, rows: int, *, at_random: bool = False) -> Play:
    runner = ApexEnvRunner(config=config)
    return lambda: runner.collect(rows, epsilon=EPSILON, random_actions=at_random).num_rows


def rllib(config: DQNConfig, rows: int) -> Play:
    runner = SingleAgentEnvRunner(config=config)
    steps = rows * config.num_envs_per_env_runner
    return lambda: sum(map(len, runner.sample(num_timesteps=steps)))


def emulator(num_envs: int, rows: int) -> Play:
    env = AtariGames(num_envs, **ATARI)._emulator
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(rows)]

    def play() -> int:
        for row in actions:
            env.step(row)
        return rows * num_envs

    return play


def contests() -> dict[str, dict[str, Callable[[], Play]]]:
    """For each contest its contestants, the one that the others are compared with last."""
    found = {}
    for num_envs in (1, 16):
        for rows in (1, 64):
            config = config_for("CartPole-v1", num_envs)
            found[f"CartPole, {num_envs} envs, fragments of {rows}"] = {
                "ApexEnvRunner": lambda config=config, rows=rows: ours(config, rows),
                "RLlib's runner": lambda config=config, rows=rows: rllib(config, rows),
                "stock": lambda n=num_envs, rows=rows: rllib(stock_config("CartPole-v1", n), rows),
            }
    for num_envs in (1, 8):
        config = config_for("rllib_per/Atari-v1", num_envs, **ATARI)
        found[f"Pong, {num_envs} envs, at random"] = {
            "ApexEnvRunner": lambda config=config: ours(config, 16, at_random=True),
            "AtariVectorEnv.step": lambda num_envs=num_envs: emulator(num_envs, 16),
        }
        found[f"Pong, {num_envs} envs, Nature CNN"] = {
            "ApexEnvRunner": lambda config=config: ours(config, 4),
            "RLlib's runner": lambda config=config: rllib(config, 4),
            "stock": lambda n=num_envs: rllib(stock_config("rllib_per/Atari-v1", n), 4),
        }
    return found


def measure(players: dict[str, Play], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Env steps per second of each player in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in players}
    for play in players.values():
        play()
    for _ in range(rounds):
        for name, play in players.items():
            steps, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                steps += play()
            speeds[name].append(steps / (time.perf_counter() - start))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each player's turn")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--only", default="", help="contests whose name contains this")
    arguments = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    rows = []
    for contest, contestants in contests().items():
        if arguments.only not in contest:
            continue
        players = {name: make() for name, make in contestants.items()}
        speeds = measure(players, arguments.rounds, arguments.seconds)
        *_, baseline = speeds.values()
        for name, own in speeds.items():
            ratios = [a / b for a, b in zip(own, baseline, strict=True)]
            rows.append(
                [contest, name, f"{max(own):,.0f}", f"{median(own):,.0f}",
                 f"{min(ratios):.2f}", f"{median(ratios):.2f}"]
            )  # fmt: skip
    print(describe_machine())
    header = ["contest", "runner", "steps/s max", "steps/s median", "ratio min", "ratio median"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
