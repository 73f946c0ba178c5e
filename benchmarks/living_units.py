# SPDX-License-Identifier: MIT
"""Whether a saved policy still has a choice: which units live, which actions it takes.

    python -m benchmarks.living_units runs/space_invaders/latest

Units are watched on frames of random play. One is alive if some frame makes it other than zero, and
dormant as in ReDo (Sokar et al. 2023, τ = 0.025). Where the advantage stream is dead, Q-values do
not differ between actions.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tree
from torch import Tensor

from benchmarks.aggregates import Floats
from benchmarks.report import table
from rllib_per.arrays import Int64s
from rllib_per.experiments.evaluation import GreedyPolicy, PlayedEpisodes, play_episodes
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.learning.network_health import is_dormant, unit_activity, watch
from rllib_per.objectives.heads import ACTIVATION_MODULES
from rllib_per.replay.leaves import Observations


def random_frames(policy: GreedyPolicy, num_frames: int, seed: int) -> Observations:
    """What random play in one environment sees, every tenth step; (num_frames, ...)."""
    env = policy.make_env(1)
    try:
        env.action_space.seed(seed)
        obs, _ = env.reset(seed=seed)
        seen = []
        for step in range(10 * num_frames):
            if step % 10 == 0:
                seen.append(tree.map_structure(np.array, obs))
            obs, *_ = env.step(env.action_space.sample())
    finally:
        env.close()
    frames: Observations = tree.map_structure(
        lambda *leaves: torch.from_numpy(np.concatenate(leaves)), *seen
    )
    return frames


def unit_shares(network: Any, frames: Observations) -> dict[str, tuple[int, float, float]]:
    """Of each activation: how many units, the share that is alive, the share that is dormant."""
    shares: dict[str, tuple[int, float, float]] = {}

    def note(name: str, outputs: Tensor) -> None:
        activity = unit_activity(outputs)
        alive, dormant = (activity > 0).float().mean(), is_dormant(activity).float().mean()
        shares[name] = len(activity), alive.item(), dormant.item()

    layers = {
        layer: functools.partial(note, name)
        for name, layer in network.named_modules()
        if isinstance(layer, ACTIVATION_MODULES)
    }
    watch(network, frames, layers)
    return shares


def q_values(policy: GreedyPolicy, frames: Observations) -> Floats:
    """(frames, actions)."""
    with torch.inference_mode():
        batch = {"obs": frames}
        values: Floats = policy.module.compute_q_values(batch)["qf_preds"].double().numpy()
    return values


def count_actions(
    policy: GreedyPolicy, num_actions: int, num_episodes: int, seed: int
) -> tuple[PlayedEpisodes, Int64s]:
    """Greedy games, one at a time, and how often each action was taken."""
    counts = np.zeros(num_actions, np.int64)
    env = policy.make_env(1)

    def act(obs: Observations) -> Int64s:
        actions = policy.actions(obs)
        np.add.at(counts, actions, 1)
        return actions

    try:
        return play_episodes(env, act, num_episodes, seed), counts
    finally:
        env.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=900_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # Threads of small batches wait for each other (decision 0046).
    run = RunFolder.open(arguments.run)
    policy = GreedyPolicy.load(run, run.experiment())
    frames = random_frames(policy, arguments.frames, arguments.seed)
    rows = [
        [name, str(count), f"{alive:.0%}", f"{dormant:.0%}"]
        for name, (count, alive, dormant) in unit_shares(policy.module.q_network, frames).items()
    ]
    print(table(["layer", "units", "alive", "dormant"], rows))
    values = q_values(policy, frames)
    ordered = np.sort(values, axis=1)
    above_second, above_last = (np.mean(ordered[:, -1] - ordered[:, at]) for at in (-2, 0))
    print(f"Q is {values.mean():.2f} on average; that of the best action is", end=" ")
    print(f"{above_second:.3f} above the second's and {above_last:.3f} above the worst's")
    games, counts = count_actions(policy, values.shape[1], arguments.episodes, arguments.seed)
    shares = ", ".join(f"{share:.0%}" for share in counts / counts.sum())
    print(
        f"{len(games.returns)} greedy games return {np.mean(games.returns):.1f}; actions: {shares}"
    )


if __name__ == "__main__":
    main()
