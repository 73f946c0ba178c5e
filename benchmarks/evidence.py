# SPDX-License-Identifier: MIT
"""The learning runs behind the documentation, one at a time; what is finished is not run again.

    make evidence                      # all of them, in the order of benchmarks/suite.py
    make evidence ONLY=cartpole        # those whose name contains "cartpole"

A run that is interrupted saves a checkpoint, and the next `make evidence` goes on with it. When it
ends, its saved policy is evaluated again, greedily, on seeds that neither training nor its own
evaluations have used, and what shows the result goes to benchmarks/evidence/<name>/. A run that
fails is tried again by the next `make evidence`; the others go on. One whose environment needs an
extra that is not installed here is left out, with a word.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.priorities import saved_priorities, spread
from benchmarks.report import describe_machine, table
from benchmarks.suite import SUITE, Run
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.interruption import EXIT_CODE as INTERRUPTED
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.shipped import missing_extra
from rllib_per.extras import how_to_install

EVIDENCE = Path("benchmarks/evidence")
RUNS = Path("runs/evidence")
KEPT = ("config.yaml", "result.json", "episodes.csv", "metrics.csv", "learning_curve.png")
KEPT_OF_SMALL = ("config.yaml", "result.json")
COLUMNS = ("env_steps", "updates", "time_s", "episode_return_mean", "evaluation_return_mean")
MAX_ROWS = 200
FRESH_SEED = 900_000


class RunFailedError(RuntimeError):
    """A run of the queue that has no result."""


def is_done(run: Run) -> bool:
    """Whether the result of a run is there."""
    return (EVIDENCE / run.name / "evidence.json").exists()


def rllib_per(*arguments: str, stdout: int | None = None) -> tuple[int, str]:
    """Run the command line; its exit code, and its standard output if `stdout` is a pipe.

    Ctrl-C reaches the command too, and is raised here when the command has saved and ended.
    """
    command = [str(Path(sys.executable).with_name("rllib-per")), *arguments]
    with subprocess.Popen(command, stdout=stdout, text=True) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            process.communicate()
            raise
    return process.returncode, output or ""


def train(run: Run, latest: Path) -> None:
    """Begin a run, or go on with it, until it has its length.

    Raises:
        RunFailedError: It ended otherwise.
    """
    changes = [part for setting in run.changes for part in ("--set", setting)]
    if any(latest.glob("checkpoints/step-*")):
        code, _ = rllib_per("train", "--resume", str(latest), *changes)
    else:
        root = latest.parents[1]
        code, _ = rllib_per(
            "train", run.config, "--seed", str(run.seed), *changes, "--runs", str(root)
        )
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (0, 3):
        raise RunFailedError(f"training ended with {code}")
    if not is_trained(run, latest):
        raise RunFailedError("training ended before it had its length")


def has_settings(latest: Path, run: Run) -> bool:
    """Whether a training has the settings of a run, but for a length that the run sets."""
    planned = load_experiment(Path(run.config), run.changes, seed=run.seed)
    saved = load_experiment(latest / "config.yaml")
    if run.env_steps is not None:
        stop = saved.stop.model_copy(update={"env_steps": planned.stop.env_steps})
        saved = saved.model_copy(update={"stop": stop})
    return saved == planned


def is_trained(run: Run, latest: Path) -> bool:
    """Whether the newest training of a run has the length that is asked for.

    Raises:
        RunFailedError: It is longer, so that its policy is another one.
    """
    if not RunFolder(latest).is_finished:
        return False
    env_steps = RunFolder(latest).read_result().env_steps
    if run.env_steps is None:
        return True
    if env_steps > 1.01 * run.env_steps:
        raise RunFailedError(
            f"{latest} has {env_steps:,} env steps, more than the {run.env_steps:,} of this run, "
            f"which comes first: without {latest.parents[1]} both are trained again"
        )
    return env_steps >= run.env_steps


def execute(run: Run) -> None:
    """Train or resume, evaluate afresh, keep what shows the result.

    Raises:
        RunFailedError: Training or evaluation failed, or a training with other settings is there.
    """
    root = RUNS / (run.folder or run.name)
    latest = root / run.config_name / "latest"
    if latest.exists() and not has_settings(latest, run):
        raise RunFailedError(f"{latest} was begun with other settings: remove {root}")
    if not is_trained(run, latest):
        train(run, latest)
    evaluate = ["evaluate", str(latest), "--episodes", str(run.episodes)]
    code, output = rllib_per(*evaluate, "--seed", str(FRESH_SEED), "--json", stdout=subprocess.PIPE)
    if code:
        raise RunFailedError(f"evaluation ended with {code}")
    keep(run, latest, json.loads(output))


def command_of(run: Run) -> str:
    """What repeats a run, for a shell."""
    settings = [part for setting in run.changes for part in ("--set", setting)]
    return shlex.join(["rllib-per", "train", run.config, "--seed", str(run.seed), *settings])


def keep(run: Run, latest: Path, evaluation: dict[str, Any]) -> None:
    """Copy what shows the result; the folder is there with all files, or not at all."""
    target = EVIDENCE / run.name
    beside = target.with_name(f".{target.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name in KEPT_OF_SMALL if run.is_small else KEPT:
        shutil.copy(latest / name, beside / name)
    if run.is_small:
        thin(latest / "metrics.csv", beside / "metrics.csv")
    summary = {
        "command": command_of(run),
        "commit": json.loads((latest / "versions.json").read_text())["commit"],
        "machine": describe_machine().strip(),
        "seconds": RunFolder(latest).read_result().time_s,
        "training_return_mean": training_return(latest / "metrics.csv"),
        "evaluation_on_fresh_seeds": evaluation,
    }
    if (saved := saved_priorities(latest)) is not None:
        summary["priorities"] = spread(*saved)
    (beside / "evidence.json").write_text(json.dumps(summary, indent=2) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)


def thin(source: Path, target: Path) -> None:
    """Copy some columns of a metrics.csv: every evaluation, and at most `MAX_ROWS` other rows."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    every = -(-len(rows) // MAX_ROWS)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for number, row in enumerate(rows, 1):
            if row["evaluation_return_mean"] or number % every == 0 or number == len(rows):
                writer.writerow(row)


def training_return(metrics: Path) -> float | None:
    """The mean over the last training episodes, in which the agent explored."""
    with metrics.open(newline="", encoding="utf-8") as file:
        means = [row["episode_return_mean"] for row in csv.DictReader(file)]
    return float(means[-1]) if means and means[-1] else None


def report(runs: Sequence[Run]) -> str:
    """A table of those that are finished."""
    rows = []
    for run in filter(is_done, runs):
        folder = EVIDENCE / run.name
        result = json.loads((folder / "result.json").read_text())
        fresh = json.loads((folder / "evidence.json").read_text())["evaluation_on_fresh_seeds"]
        rows.append(
            [
                run.name,
                result["ending"],
                f"{result['env_steps']:,}",
                f"{result['updates']:,}",
                f"{result['time_s']:,.0f}",
                f"{fresh['episode_return_mean']:.2f}",
                f"{fresh['episode_return_min']:.0f}",
                str(fresh["num_episodes"]),
            ]
        )
    header = ["run", "ending", "env steps", "updates", "seconds", "greedy return", "least", "games"]
    return table(header, rows)


def run_all(runs: Sequence[Run]) -> list[str]:
    """Run those that are not done, one after the other; what went wrong.

    A longer run waits for the shorter one with which it begins.
    """
    failures: list[str] = []
    failed_folders = set()
    missing = [run for run in runs if not is_done(run)]
    for number, run in enumerate(missing, 1):
        extra = missing_extra(run.shipped_name)
        if extra is not None:
            print(f"{run.name}: left out, for it needs {how_to_install(extra)}", flush=True)
            continue
        if run.folder in failed_folders:
            print(f"{run.name}: left out, for a shorter run in its folder failed", flush=True)
            continue
        print(f"{run.name}, {number} of {len(missing)} ...", flush=True)
        try:
            execute(run)
        except Exception as error:
            failures.append(f"{run.name}: {type(error).__name__}: {error}")
            failed_folders.add(run.folder or run.name)
            print(failures[-1], file=sys.stderr, flush=True)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of the names of the runs")
    only = parser.parse_args().only
    runs = [run for run in SUITE if only in run.name]
    if not runs:
        parser.error(f"no run of benchmarks/suite.py has {only!r} in its name")
    try:
        failures = run_all(runs)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with it", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    print(report(runs))
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
