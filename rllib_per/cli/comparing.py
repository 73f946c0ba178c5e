# SPDX-License-Identifier: MIT
"""`compare`: one experiment with several replay buffers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rllib_per.cli.errors import recorded, reported, saving, starting
from rllib_per.cli.options import CONFIG, RUNS, cluster_address, experiment_options
from rllib_per.experiments.interruption import EXIT_CODE, no_longer_than
from rllib_per.experiments.named_classes import option_for
from rllib_per.experiments.run_lock import run_lock
from rllib_per.experiments.yaml_source import printable

if TYPE_CHECKING:
    from rich.console import Console

    from rllib_per.experiments.comparing.comparison import ComparedRun, ComparisonFolder

# How long Ray may take to end.
_PATIENCE_S = 8.0


@click.command(short_help="Train with several replay buffers.")
@click.argument("config", type=CONFIG)
@click.option(
    "--replay",
    "replays",
    required=True,
    metavar="TYPE,TYPE,...",
    help="The replay buffers, e.g. prioritized,uniform,rllib_prioritized.",
)
@click.option("--seeds", type=click.IntRange(min=1), help="Runs of each. [default: 3; smoke: 1]")
@experiment_options
@click.option(
    "--runs", "root", type=click.Path(path_type=Path), default=RUNS / "compare", show_default=True
)
@cluster_address
def compare(
    config: Path,
    replays: str,
    seeds: int | None,
    overrides: tuple[str, ...],
    seed: int | None,
    smoke: bool,
    allow_custom_classes: bool,
    root: Path,
    address: str | None,
) -> None:
    """Train CONFIG with several replay buffers into runs/compare/<time>: a plot and a table.

    One run after the other, each for the whole budget, so that nothing disturbs the speed; run
    nothing else meanwhile. `resume` goes on with what is not finished. Exit code 130: interrupted.
    """
    from rllib_per.experiments.comparing.comparison import ComparisonFolder, plan_comparison

    names = [name.strip() for name in replays.split(",") if name.strip()]
    with reported():
        compared_runs, target = plan_comparison(
            config,
            names,
            seeds or (1 if smoke else 3),
            overrides,
            seed=seed,
            smoke=smoke,
            allow_custom_classes=allow_custom_classes,
        )
        from rllib_per.experiments.environment_check import check_algorithm, check_environment

        for compared_run in compared_runs[: len(names)]:  # Those of the first seed.
            with starting():
                check_environment(compared_run.experiment)
            check_algorithm(compared_run.experiment)
        folder = ComparisonFolder.create(root, config.stem, compared_runs, target)
    sys.exit(run_comparison(folder, compared_runs, address))


def run_comparison(
    folder: ComparisonFolder, compared_runs: Sequence[ComparedRun], address: str | None
) -> int:
    from rllib_per.experiments.ray_session import num_cpus, ray_session
    from rllib_per.experiments.terminal import PlainConsole

    console = PlainConsole()
    largest = max((c.experiment for c in compared_runs), key=num_cpus)
    with ExitStack() as session:
        with reported():
            session.enter_context(ray_session(largest, address, folder.ray_log))
        from rllib_per.experiments.comparing.report import report

        is_complete = _train_all(folder, compared_runs, console)
        if is_complete:
            console.print(report(folder, compared_runs))
        # Ray may wait for processes that are dead.
        with no_longer_than(_PATIENCE_S, 0 if is_complete else EXIT_CODE):
            session.close()
    for replay, ignored in {c.replay: c.ignored for c in compared_runs}.items():
        if ignored:
            click.echo(printable(f"{replay} has no {', '.join(ignored)}: left out."))
    if not is_complete:
        command = f"rllib-per resume {shlex.quote(str(folder.path))}{option_for(largest)}"
        click.echo(printable(f"interrupted; go on with `{command}`"))
        return EXIT_CODE
    click.echo(printable(str(folder.plot)))
    return 0


def _train_all(
    folder: ComparisonFolder, compared_runs: Sequence[ComparedRun], console: Console
) -> bool:
    """Train every run that is not finished, one after the other; False if Ctrl-C ended it."""
    from rllib_per.experiments.progress import ProgressDisplay
    from rllib_per.experiments.training import TrainingRun

    for number, compared_run in enumerate(compared_runs, start=1):
        run = folder.run(compared_run)
        if run.is_finished:
            continue
        title = f"{compared_run.name} ({number} of {len(compared_runs)})"
        display = ProgressDisplay(console, compared_run.experiment.stop)
        display.say(title)
        with ExitStack() as lock:
            with starting():
                lock.enter_context(run_lock(run.checkpoints))
                is_begun = any(run.checkpoints.glob("step-*"))
                training = TrainingRun(compared_run.experiment, run, display, resume=is_begun)
            with recorded(run.failure), saving():
                if training.run() == "interrupted":
                    return False
    return True
