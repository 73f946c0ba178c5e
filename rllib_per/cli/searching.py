# SPDX-License-Identifier: MIT
"""`tune`: search for the settings that an experiment leaves open."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rllib_per.cli.errors import NO_RESULT, complain, reported, starting
from rllib_per.cli.options import CONFIG, RUNS, cluster_address, experiment_options
from rllib_per.experiments.named_classes import option_for
from rllib_per.experiments.run_folder import EXIT_CODES
from rllib_per.experiments.run_lock import run_lock
from rllib_per.experiments.yaml_source import printable

if TYPE_CHECKING:
    from rllib_per.experiments.tuning.plan import SearchPlan, TuningFolder


@click.command(short_help="Search for settings with Ray Tune.")
@click.argument("config", type=CONFIG)
@experiment_options
@click.option(
    "--runs", "root", type=click.Path(path_type=Path), default=RUNS / "tune", show_default=True
)
@cluster_address
def tune(
    config: Path,
    overrides: tuple[str, ...],
    seed: int | None,
    smoke: bool,
    allow_custom_classes: bool,
    root: Path,
    address: str | None,
) -> None:
    """Search for the settings that CONFIG leaves open into runs/tune/<config>/<time>.

    Exit code 0: the best trial met the target (or none was set); 1: no trial came to a result; 3:
    none met the target; 130: interrupted, to be taken up with `resume`.
    """
    from rllib_per.experiments.tuning.plan import TuningFolder, load_plan

    with reported():
        plan = load_plan(
            config, overrides, seed=seed, smoke=smoke, allow_custom_classes=allow_custom_classes
        )
        from rllib_per.experiments.environment_check import check_algorithm, check_environment

        for variant in plan.variants:
            with starting():
                check_environment(variant)
            check_algorithm(variant)
        folder = TuningFolder.create(root / config.stem, plan)
    sys.exit(run_search(plan, folder, address, resume=False, is_smoke=smoke))


def run_search(
    plan: SearchPlan,
    folder: TuningFolder,
    address: str | None,
    *,
    resume: bool,
    is_smoke: bool = False,
) -> int:
    """Search, and say how it ended; the exit code."""
    from rllib_per.experiments.ray_session import num_cpus, ray_session

    largest = max(plan.variants, key=num_cpus)
    with ExitStack() as start, ExitStack() as session:
        if not resume:
            start.enter_context(folder.starting(folder.path.parent, is_smoke=is_smoke))
        with reported():
            session.enter_context(run_lock(folder.path))
            if resume:
                folder.record(plan)
        from rllib_per.experiments.tuning import search

        search.set_tunes_environment()
        with reported():
            session.enter_context(ray_session(largest, address))
            tuner = search.resume(folder) if resume else search.start(plan, folder)
        start.close()
        try:
            ending = search.run(tuner, plan, folder)
        except search.NoResultError as error:
            complain(error)
            return NO_RESULT
    if ending == "interrupted":
        again = f"rllib-per resume {shlex.quote(str(folder.path))}{option_for(plan.config)}"
        click.echo(printable(f"next: {again}"))
    click.echo(printable(f"{ending.replace('_', ' ')}: {folder.path}"))
    return EXIT_CODES[ending]
