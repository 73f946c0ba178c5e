# SPDX-License-Identifier: MIT
"""Finished runs, as benchmarks/evidence keeps them."""

import csv
import json

from benchmarks.suite import minatar_name


def write_run(folder, name, greedy, training=(0.0, 0.0), evaluations=None, priorities=None):
    """The files that are read; a point of the curve for every 20,000 env steps."""
    path = folder / name
    path.mkdir(parents=True)
    evaluations = evaluations or [""] * len(training)
    with (path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["env_steps", "episode_return_mean", "evaluation_return_mean"])
        for number, (mean, evaluation) in enumerate(zip(training, evaluations, strict=True), 1):
            writer.writerow([20_000 * number, mean, evaluation])
    fresh = {"episode_return_mean": greedy}
    summary = {"training_return_mean": training[-1], "evaluation_on_fresh_seeds": fresh}
    if priorities is not None:
        summary["priorities"] = priorities
    (path / "evidence.json").write_text(json.dumps(summary))


def write_seeds(folder, game, variant, *seeds, length="500k"):
    """(greedy return, training curve) of each seed."""
    for seed, (greedy, training) in enumerate(seeds):
        write_run(folder, minatar_name(length, game, variant, seed), greedy, training)
