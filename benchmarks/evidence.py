# SPDX-License-Identifier: MIT
"""The learning runs behind the documentation, one at a time; what is finished is not run again.

    make evidence                      # all of them
    make evidence ONLY=cartpole        # those whose name contains "cartpole"

A run that was interrupted is resumed from its newest checkpoint. When it ends, its saved policy is
evaluated again, greedily, on seeds that neither training nor its own evaluations have used, and
what shows the result goes to benchmarks/evidence/<name>/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import describe_machine, table
from rllib_per.experiments.run_folder import RunFolder

EVIDENCE = Path("benchmarks/evidence")
RUNS = Path("runs/evidence")
KEPT = ("config.yaml", "result.json", "episodes.csv", "metrics.csv", "learning_curve.png")
FRESH_SEED = 900_000


@dataclass(frozen=True)
class Run:
    """One learning run: a name, a configuration, a seed and what is changed."""

    name: str
    config: str
    seed: int = 0
    episodes: int = 100
    settings: tuple[str, ...] = field(default=())

    @property
    def config_name(self) -> str:
        return Path(self.config).stem


SUITE = (
    *(Run(f"cartpole-{seed}", "configs/cartpole.yaml", seed) for seed in range(5)),
    Run("cartpole-per-seed", "configs/seeds/cartpole_per.yaml"),
    Run("cartpole-d3qn-seed", "configs/seeds/cartpole_d3qn.yaml", episodes=20),
    Run("cartpole-apex", "configs/cartpole_apex.yaml"),
    Run("pong-small", "configs/atari/pong_small.yaml", episodes=20),
    Run("space-invaders-seed", "configs/seeds/space_invaders.yaml", episodes=20),
)


def rllib_per(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; its standard output is returned."""
    command = [str(Path(sys.executable).with_name("rllib-per")), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


def execute(run: Run) -> None:
    """Train or resume, evaluate afresh, keep what shows the result."""
    runs = RUNS / run.name
    latest = runs / run.config_name / "latest"
    changes = [part for setting in run.settings for part in ("--set", setting)]
    command = ["train", run.config, "--seed", str(run.seed), *changes]
    if not RunFolder(latest).is_finished:
        if any(latest.glob("checkpoints/step-*")):
            finished = rllib_per("train", "--resume", str(latest))
        else:
            finished = rllib_per(*command, "--runs", str(runs))
        if finished.returncode not in (0, 3):
            raise SystemExit(f"{run.name}: training ended with {finished.returncode}")
    evaluate = ["evaluate", str(latest), "--episodes", str(run.episodes)]
    evaluate += ["--seed", str(FRESH_SEED), "--json"]
    evaluation = json.loads(rllib_per(*evaluate).stdout)
    target = EVIDENCE / run.name
    target.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(latest / name, target / name)
    summary = {
        "command": "rllib-per " + " ".join(command),
        "machine": describe_machine().strip(),
        "evaluation_on_fresh_seeds": evaluation,
    }
    (target / "evidence.json").write_text(json.dumps(summary, indent=2) + "\n")


def report() -> str:
    """A table of all finished runs."""
    rows = []
    for run in SUITE:
        folder = EVIDENCE / run.name
        if not (folder / "evidence.json").exists():
            continue
        result = json.loads((folder / "result.json").read_text())
        fresh = json.loads((folder / "evidence.json").read_text())["evaluation_on_fresh_seeds"]
        rows.append(
            [
                run.name,
                result["ending"],
                f"{result['env_steps']:,}",
                f"{result['updates']:,}",
                f"{result['time_s']:,.0f}",
                f"{fresh['episode_return_mean']:.1f}",
                f"{fresh['episode_return_min']:.0f}",
                str(fresh["num_episodes"]),
            ]
        )
    header = ["run", "ending", "env steps", "updates", "seconds", "greedy return", "least", "games"]
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of the names of the runs")
    arguments = parser.parse_args()
    for run in SUITE:
        if arguments.only in run.name and not (EVIDENCE / run.name / "evidence.json").exists():
            print(f"{run.name} ...", flush=True)
            execute(run)
    print(report())


if __name__ == "__main__":
    main()
