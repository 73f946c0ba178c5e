# SPDX-License-Identifier: MIT
"""Does it learn the same? Lazy against eager priorities, asynchronous against local, over seeds.

    make bench-curves        # one run at a time; what is finished is not run again

CartPole with the settings of configs/cartpole_apex.yaml and eight environments, in three ways:
"local" takes turns in one process; "eager" is asynchronous and sends each update's priorities at
once; "lazy" is asynchronous with the defaults. Every run plays greedily now and then. Reported are
the mean over seeds with its 95 % interval (Student's t), at each point and for the mean over the
whole curve, and whether one side's mean lies within the other's interval.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.curves import Floats, compare, save
from benchmarks.report import describe_machine
from rllib_per.experiments.run_folder import RunFolder

CONFIG = "configs/cartpole_apex.yaml"
EVIDENCE = Path("benchmarks/evidence/curves")
RUNS = Path("runs/curves")

WAYS = {
    "local": (
        "env_runners.num_env_runners=0",
        "env_runners.num_envs_per_env_runner=8",
        "replay.type=prioritized",
        "replay.num_shards=1",
        "replay.shard_num_cpus=1",
    ),
    "eager": ("replay.priority_flush_updates=1",),
    "lazy": (),
}
# (side, the one whose interval its mean should lie in)
QUESTIONS = (("lazy", "eager"), ("lazy", "local"))


def train(way: str, seed: int, env_steps: int, interval: int, runs: Path) -> Path:
    """The folder of a finished run, which is made only if it is not there."""
    root = runs / f"{way}-{seed}-{env_steps}"
    run = root / Path(CONFIG).stem / "latest"
    if RunFolder(run).is_finished:
        return run
    settings = (
        *WAYS[way],
        f"stop={{env_steps: {env_steps}}}",
        f"evaluation.interval_env_steps={interval}",
        "evaluation.final_num_episodes=1",
        f"reporting.min_sample_timesteps_per_iteration={interval // 5}",
        "checkpoint={every_env_steps: null, buffer: false}",
    )
    command = [str(Path(sys.executable).with_name("rllib-per")), "train", CONFIG]
    command += ["--seed", str(seed), "--runs", str(root)]
    command += [part for setting in settings for part in ("--set", setting)]
    finished = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {finished.returncode}")
    return run


def greedy_returns(run: Path, grid: Floats) -> Floats:
    """The greedy evaluations of a run, at the env steps of `grid`."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        points = [
            (float(row["env_steps"]), float(row["evaluation_return_mean"]))
            for row in csv.DictReader(file)
            if row["evaluation_return_mean"]
        ]
    if not points:
        raise SystemExit(f"{run} has no evaluation: raise --env-steps or lower --interval")
    steps, returns = np.array(points).T
    return np.interp(grid, steps, returns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--env-steps", type=int, default=25_000, help="of each run")
    parser.add_argument("--interval", type=int, default=2_500, help="env steps between evaluations")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--evidence", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    grid = np.arange(arguments.interval, arguments.env_steps + 1, arguments.interval, np.float64)
    found: dict[str, list[Floats]] = {way: [] for way in WAYS}
    # Seed by seed, so that what is there after an interruption can be compared.
    for seed in range(arguments.seeds):
        for way in WAYS:
            print(f"{way}, seed {seed} ...", file=sys.stderr, flush=True)
            run = train(way, seed, arguments.env_steps, arguments.interval, arguments.runs)
            found[way].append(greedy_returns(run, grid))
    curves = {way: np.array(own) for way, own in found.items()}
    save(curves, grid, arguments.evidence, "greedy return")
    print(describe_machine())
    print(compare(curves, QUESTIONS))


if __name__ == "__main__":
    main()
