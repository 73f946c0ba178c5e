# SPDX-License-Identifier: MIT
"""A Dict of an image and a vector against each of them alone: `python -m benchmarks.bench_trees`.

Three times, in one process and one thread: 8 steps of 8 environments into columns without a
network, drawing a batch of 32 from replay, and a gradient step on it. The three observations take
turns; the last column is the Dict's median over the sum of the medians of its leaves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from benchmarks.report import describe_machine, table
from rllib_per import ApexDQNConfig
from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.runners.env_runner import ApexEnvRunner

NUM_ENVS, NUM_ROWS, BATCH_SIZE, SECONDS = 8, 8, 32, 20.0

IMAGE = gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
VECTOR = gym.spaces.Box(-1.0, 1.0, (17,), np.float32)
SPACES: dict[str, gym.Space[Any]] = {
    "image": IMAGE,
    "vector": VECTOR,
    "both": gym.spaces.Dict(image=IMAGE, vector=VECTOR),
}
PARTS = ("environment steps", "replay", "gradient step")


class Still(gym.Env[Any, int]):
    """Shows the same again and again; its own time is next to nothing."""

    action_space = gym.spaces.Discrete(6)

    def __init__(self, context: dict[str, Any]) -> None:
        self.observation_space = SPACES[context["space"]]
        self._shown = self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self._shown, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._shown, 1.0, False, False, {}


def parts_of(space: str) -> Iterator[Callable[[], Any]]:
    """What is timed of one observation, in the order of PARTS."""
    config = (
        ApexDQNConfig()
        .environment(Still, env_config={"space": space})
        .env_runners(num_envs_per_env_runner=NUM_ENVS)
        .training(grad_clip=10.0)
        .debugging(seed=0, log_level="ERROR")
    )
    runner = ApexEnvRunner(config=config)
    learner = config.build_learner(spaces=runner.get_spaces())
    replay = PrioritizedReplayBuffer(3000, runner.row_spec, n_step=3, seed=0)
    while len(replay) < 2000:
        replay.add(runner.collect(NUM_ROWS, epsilon=1.0))
    batch = replay.sample(BATCH_SIZE, 0.4)
    counts = {"env_steps": 0, "episodes": 0}
    yield lambda: runner.collect(NUM_ROWS, epsilon=1.0)
    yield lambda: replay.sample(BATCH_SIZE, 0.4)
    yield lambda: learner.update_from_replay(batch, timesteps=counts)


def main() -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(describe_machine(), end="\n\n")
    parts = {space: list(parts_of(space)) for space in SPACES}
    times: dict[tuple[str, int], list[float]] = {
        (space, i): [] for space in SPACES for i in range(len(PARTS))
    }
    end = time.perf_counter() + SECONDS
    for space, i in cycle(times):
        start = time.perf_counter()
        parts[space][i]()
        times[space, i].append(time.perf_counter() - start)
        if start > end and len(times[space, i]) > 20:
            break
    rows = []
    for i, part in enumerate(PARTS):
        image, vector, both = (1e6 * median(times[space, i]) for space in SPACES)
        ratio = both / (image + vector)
        rows.append([part, f"{image:.0f}", f"{vector:.0f}", f"{both:.0f}", f"{ratio:.2f}"])
    print(table(["µs", "image", "vector", "both", "both / (image + vector)"], rows))


if __name__ == "__main__":
    main()
