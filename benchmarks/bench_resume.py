# SPDX-License-Identifier: MIT
"""Does a run that was killed and resumed learn as one that was not?

    python -m benchmarks.bench_resume

Trains CartPole with each of n seeds twice: to the end, and to half of it, where the process is
killed (kill -9) once a checkpoint with the buffer is there, and then resumed. Compared is the mean
return of the training episodes in the last third. Seeds differ by far more than resuming could make
up, and the first half of both runs is the same, so what counts is the difference d of each pair: if
resuming changes nothing, then at 95 % confidence

    |mean(d)| <= t(0.975, n - 1) · s(d) / sqrt(n)
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import t as student

CONFIG = "configs/cartpole.yaml"
ENV_STEPS = 12_000
SETTINGS = (
    "training.replay_ratio=8",
    "training.epsilon={type: linear, initial: 1.0, final: 0.04, steps: 4000}",
    "evaluation.interval_env_steps=null",
    "evaluation.final_num_episodes=1",
    "stop.target_return=null",
    f"checkpoint.every_env_steps={ENV_STEPS // 2}",
    f"stop.env_steps={ENV_STEPS}",
)
PATIENCE_S = 1800.0


def command(*arguments: str) -> list[str]:
    """The command line with these arguments."""
    return [str(Path(sys.executable).with_name("rllib-per")), *arguments]


def train(seed: int, runs: Path) -> Path:
    """A run to its end; its folder."""
    subprocess.run(start_of(seed, runs), stdout=subprocess.DEVNULL, check=True)
    return runs / "cartpole" / "latest"


def train_killed(seed: int, runs: Path) -> Path:
    """A run that is killed after its first checkpoint, and resumed to its end."""
    latest = runs / "cartpole" / "latest"
    end_s = time.monotonic() + PATIENCE_S
    with subprocess.Popen(start_of(seed, runs), stdout=subprocess.DEVNULL) as process:
        while not any(latest.glob("checkpoints/step-*")):
            if process.poll() is not None or time.monotonic() > end_s:
                raise SystemExit("there is no checkpoint to resume from")
            time.sleep(0.05)
        process.kill()
    resume = command("train", "--resume", str(latest))
    subprocess.run(resume, stdout=subprocess.DEVNULL, check=True)
    return latest


def start_of(seed: int, runs: Path) -> list[str]:
    """What begins a run."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return command("train", CONFIG, "--seed", str(seed), "--runs", str(runs), *settings)


def late_return(run: Path) -> float:
    """Mean return of the training episodes in the last third."""
    with (run / "episodes.csv").open(newline="") as file:
        rows = [(int(r["env_steps"]), float(r["episode_return"])) for r in csv.DictReader(file)]
    return float(np.mean([value for steps, value in rows if steps > ENV_STEPS * 2 // 3]))


def main() -> None:
    """Train, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="pairs of runs")
    num = parser.parse_args().seeds
    figures: dict[str, list[float]] = {"uninterrupted": [], "resumed": []}
    for seed in range(num):
        for kind, how in (("uninterrupted", train), ("resumed", train_killed)):
            with tempfile.TemporaryDirectory() as runs:
                figures[kind].append(late_return(how(seed, Path(runs))))
            print(f"{kind}, seed {seed}: {figures[kind][-1]:.1f}", flush=True)
    whole, resumed = np.array(figures["uninterrupted"]), np.array(figures["resumed"])
    differences = resumed - whole
    reach = student.ppf(0.975, num - 1) * differences.std(ddof=1) / math.sqrt(num)
    print(
        f"late return: uninterrupted {whole.mean():.1f}, resumed {resumed.mean():.1f}; difference "
        f"{differences.mean():+.1f}, and up to ±{reach:.1f} is chance"
    )
    sys.exit(int(abs(differences.mean()) > reach))


if __name__ == "__main__":
    main()
