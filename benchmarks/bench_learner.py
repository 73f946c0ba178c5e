# SPDX-License-Identifier: MIT
"""One gradient step: ApexDQNLearner against a bare torch loop and RLlib's DQNTorchLearner.

    make bench-learner

Dueling double DQN with Huber loss, each objective, Rainbow and BTR as a whole, with importance
weights, gradient clipping and Adam, batch 32, for the MLP of CartPole, the Nature CNN, and of BTR
the residual network of configs/atari/btr_small.yaml; all take numpy batches and give priorities
back as numpy. RLlib's is there for the first alone.
They take turns in this process; ratios are of the times within one round. `--device cuda` gives
them a GPU, `--batch-size 512` the batches of Ape-X. A second table says what is done now and then:
measuring the network's health, once in a hundred updates, and recycling units, once in a thousand.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch.nn.utils import clip_grad_norm_

from benchmarks.bare_losses import OBJECTIVES, Columns, Losses
from benchmarks.report import describe_machine, table
from rllib_per import ApexDQNConfig
from rllib_per.learning.spectral_norm import SpectralConv2d
from rllib_per.replay import TransitionBatch

GAMMA, LR, GRAD_CLIP = 0.99, 1e-4, 40.0
NETWORKS = {
    "MLP 256, 256": ((4,), np.float32, 2, {"fcnet_hiddens": [256], "head_fcnet_hiddens": [256]}),
    "Nature CNN": ((4, 84, 84), np.uint8, 6, {"head_fcnet_hiddens": [512]}),
    "BTR 42×42": (
        (4, 42, 42),
        np.uint8,
        6,
        {
            "network": "impala",
            "channels": [8, 16, 16],
            "spectral_norm": True,
            "adaptive_pool": 3,
            "hiddens": [128],
        },
    ),
}
NOW_AND_THEN = {"health": 100, "ReDo": 1000}


def draw_batch(shape: tuple[int, ...], dtype: Any, num_actions: int, size: int) -> TransitionBatch:
    rng = np.random.default_rng(0)

    def observations() -> Any:
        if dtype == np.uint8:
            return rng.integers(0, 256, (size, *shape), dtype=np.uint8)
        return rng.standard_normal((size, *shape), dtype=np.float32)

    return TransitionBatch(
        obs=observations(),
        actions=rng.integers(0, num_actions, size),
        n_step_returns=rng.standard_normal(size, dtype=np.float32),
        next_obs=observations(),
        bootstrap_discounts=np.full(size, GAMMA, np.float32),
        importance_weights=rng.uniform(0.1, 1.0, size).astype(np.float32),
        ids=np.arange(size),
    )


def build_learner(
    config_class: type,
    shape: Any,
    dtype: Any,
    num_actions: int,
    model: Any,
    num_gpus: int = 0,
    **training: Any,
) -> Any:
    high = 255 if dtype == np.uint8 else np.inf
    config = (
        config_class()
        .training(lr=LR, grad_clip=GRAD_CLIP, target_network_update_freq=500, gamma=GAMMA)
        .training(**training)
        .rl_module(model_config=model)
        .learners(num_gpus_per_learner=num_gpus)
        .debugging(seed=0, log_level="ERROR")
    )
    learner = config.build_learner(
        spaces={"default_policy": (gym.spaces.Box(0 if high == 255 else -high, high, shape, dtype),
                                   gym.spaces.Discrete(num_actions))}
    )  # fmt: skip
    learner.build()
    return learner


def ours(learner: Any, batch: TransitionBatch) -> Callable[[], Any]:
    counts = {"env_steps": 0, "episodes": 0}

    def update() -> Any:
        counts["env_steps"] += 4
        return learner.update_from_replay(batch, timesteps=counts, lr=LR)

    return update


def bare(
    network: torch.nn.Module, batch: TransitionBatch, losses_of: Losses, **adam: Any
) -> Callable[[], Any]:
    """What one would write without any framework, on a copy of the same network."""
    device = next(network.parameters()).device
    network = copy.deepcopy(network)
    target = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, **adam)
    normed = [layer for layer in network.modules() if isinstance(layer, SpectralConv2d)]
    num_updates = 0

    def update() -> Any:
        nonlocal num_updates
        columns = (
            torch.from_numpy(column).to(device)
            for column in (
                batch.obs,
                batch.actions,
                batch.next_obs,
                batch.n_step_returns,
                batch.bootstrap_discounts,
                batch.importance_weights,
            )
        )
        tensors = Columns._make(columns)
        for layer in normed:
            layer.iterate()
        losses, priorities = losses_of(network, target, tensors)
        optimizer.zero_grad()
        (tensors.weights * losses).mean().backward()
        clip_grad_norm_(network.parameters(), GRAD_CLIP)
        optimizer.step()
        num_updates += 1
        if num_updates % 125 == 0:
            target.load_state_dict(network.state_dict())
        return priorities.cpu().numpy()

    return update


def rllib(learner: Any, batch: TransitionBatch) -> Callable[[], Any]:
    """RLlib's own learner past its connector, with the float32 (H, W, C) images that it wants."""
    pixels = batch.obs.dtype == np.uint8
    obs, next_obs = (
        np.ascontiguousarray(o.transpose(0, 2, 3, 1), dtype=np.float32) / 255 if pixels else o
        for o in (batch.obs, batch.next_obs)
    )
    columns = {
        "obs": obs,
        "new_obs": next_obs,
        "actions": batch.actions,
        "rewards": batch.n_step_returns,
        "terminateds": np.zeros(len(batch), bool),
        "weights": batch.importance_weights,
        "n_step": np.ones(len(batch), np.float32),
    }
    env_steps = 0

    def update() -> Any:
        nonlocal env_steps
        env_steps += 4
        return learner.update(
            batch=MultiAgentBatch({"default_policy": SampleBatch(columns)}, len(batch)),
            timesteps={"num_env_steps_sampled_lifetime": env_steps},
        )

    return update


def contestants(
    name: str, objective: str, batch_size: int, num_gpus: int
) -> dict[str, Callable[[], Any]]:
    training, losses_of = OBJECTIVES[objective]
    shape, dtype, num_actions, model = NETWORKS[name]
    batch = draw_batch(shape, dtype, num_actions, batch_size)
    activations = {} if dtype == np.uint8 else {"fcnet_activation": "relu"}
    learner = build_learner(
        ApexDQNConfig, shape, dtype, num_actions, model | activations, num_gpus, **training
    )
    network = learner.module["default_policy"].q_network
    sides: dict[str, Callable[[], Any]] = {
        "bare torch": bare(network, batch, losses_of),
        "bare torch, fused Adam": bare(network, batch, losses_of, fused=True),
        "ApexDQNLearner": ours(learner, batch),
    }
    if training:
        return sides
    theirs = DefaultModelConfig(**model, **activations)
    if dtype == np.uint8:
        theirs.conv_filters, shape = [[32, 8, 4], [64, 4, 2], [64, 3, 1]], (84, 84, 4)
    stock = build_learner(DQNConfig, shape, np.float32, num_actions, theirs, num_gpus)
    return sides | {"RLlib": rllib(stock, batch)}


def measure(updates: dict[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds per update of each contestant in each round."""
    for update in updates.values():
        for _ in range(5):
            update()
    times: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(rounds):
        for name, update in updates.items():
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                update()
                count += 1
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(1e3 * (time.perf_counter() - start) / count)
    return times


def now_and_then(
    name: str, objective: str, batch_size: int, num_gpus: int, rounds: int, seconds: float
) -> list[str]:
    """Least milliseconds of an update, and of what is done once in many; what that adds to each."""
    training, _ = OBJECTIVES[objective]
    shape, dtype, num_actions, model = NETWORKS[name]
    batch = draw_batch(shape, dtype, num_actions, batch_size)
    redo = {"interval": NOW_AND_THEN["ReDo"]}
    learner = build_learner(
        ApexDQNConfig, shape, dtype, num_actions, model, num_gpus, **training, redo=redo
    )
    health, recycler = learner._step.health, learner._step.recycler
    obs = torch.from_numpy(batch.obs).to(learner._device)

    def measure_health() -> None:
        health._measure(obs[:128])
        health.report()

    parts = {
        "update": ours(learner, batch),
        "health": measure_health,
        "ReDo": lambda: recycler.after_update(obs, NOW_AND_THEN["ReDo"]),
    }
    times = {part: min(own) for part, own in measure(parts, rounds, seconds).items()}
    return [f"{ms:.2f}" for ms in times.values()] + [
        f"{100 * times[part] / updates / times['update']:.2f} %"
        for part, updates in NOW_AND_THEN.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each contestant's turn")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    num_gpus = int(arguments.device == "cuda")
    logging.getLogger("ray").setLevel(logging.ERROR)
    rows, rare_rows = [], []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for network, objective in itertools.product(arguments.networks, arguments.objectives):
            if (network == "BTR 42×42") != (objective == "BTR"):
                continue
            sides = contestants(network, objective, arguments.batch_size, num_gpus)
            times = measure(sides, arguments.rounds, arguments.seconds)
            for name, own in times.items():
                ratios = [t / bare for t, bare in zip(own, times["bare torch"], strict=True)]
                rows.append(
                    [network, objective, str(threads), name, f"{min(own):.2f}",
                     f"{median(own):.2f}", f"{min(ratios):.2f}", f"{median(ratios):.2f}"]
                )  # fmt: skip
            if objective in ("Rainbow", "BTR"):
                sizes = arguments.batch_size, num_gpus, arguments.rounds, arguments.seconds
                rare = now_and_then(network, objective, *sizes)
                rare_rows.append([network, objective, str(threads), *rare])
    print(describe_machine())
    print(f"B = {arguments.batch_size}, {arguments.device}\n")
    print(
        table(
            [
                "network",
                "objective",
                "threads",
                "learner",
                "ms min",
                "ms median",
                "× bare min",
                "× bare median",
            ],
            rows,
        )
    )
    print()
    print(
        table(
            [
                "network",
                "objective",
                "threads",
                "update, ms min",
                "health, ms min",
                "ReDo, ms min",
                "health, share of the time",
                "ReDo, share of the time",
            ],
            rare_rows,
        )
    )


if __name__ == "__main__":
    main()
