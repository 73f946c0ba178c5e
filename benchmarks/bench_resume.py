# SPDX-License-Identifier: MIT
"""Does a run that was killed and resumed learn as one that was not?

    python -m benchmarks.bench_resume

Trains CartPole a few times to the end, and as often, with other seeds, to half of it, where the
process is killed (kill -9) once a checkpoint with the buffer is there, and then resumed. Compared
is the mean return of the training episodes in the last third. If resuming changes nothing, the mean
of the resumed runs lies, at 95 % confidence, in

    mean ± t(0.975, n - 1) · s · sqrt(1/n + 1/m)

of n runs that were not interrupted, with their standard deviation s, and m that were.
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
    parser.add_argument("--seeds", type=int, default=5, help="runs of each kind")
    num = parser.parse_args().seeds
    figures: dict[str, list[float]] = {"uninterrupted": [], "resumed": []}
    for seed in range(num):
        for kind, how, number in (
            ("uninterrupted", train, seed),
            ("resumed", train_killed, num + seed),
        ):
            with tempfile.TemporaryDirectory() as runs:
                figures[kind].append(late_return(how(number, Path(runs))))
            print(f"{kind}, seed {number}: {figures[kind][-1]:.1f}", flush=True)
    whole, resumed = figures["uninterrupted"], figures["resumed"]
    mean, spread = np.mean(whole), np.std(whole, ddof=1)
    reach = student.ppf(0.975, num - 1) * spread * math.sqrt(2 / num)
    print(
        f"late return: uninterrupted {mean:.1f} (s = {spread:.1f}), so that {mean - reach:.1f} to "
        f"{mean + reach:.1f} is expected of the others; resumed {np.mean(resumed):.1f}"
    )
    sys.exit(int(abs(np.mean(resumed) - mean) > reach))


if __name__ == "__main__":
    main()
