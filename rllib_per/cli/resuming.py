# SPDX-License-Identifier: MIT
"""`resume`: go on with whatever was interrupted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rllib_per.cli.comparing import run_comparison
from rllib_per.cli.errors import reported
from rllib_per.cli.options import (
    FOLDER,
    allow_custom_classes,
    changed_settings,
    cluster_address,
    output_options,
    smoke_option,
)
from rllib_per.cli.searching import run_search
from rllib_per.cli.training import resume_run

if TYPE_CHECKING:
    from rllib_per.experiments.progress import Output


@click.command(short_help="Go on with a run where it stopped.")
@click.argument("run", type=FOLDER)
@changed_settings
@smoke_option("Of a run of `train`: try one iteration on a copy, and throw it away.")
@allow_custom_classes
@cluster_address
@output_options
def resume(
    run: Path,
    overrides: tuple[str, ...],
    smoke: bool,
    allow_custom_classes: bool,
    address: str | None,
    output: Output | None,
    track: str | None,
) -> None:
    """Go on with RUN, of `train`, `tune` or `compare`, where it stopped. Exit codes as theirs.

    --set, --quiet, --json-lines and --track are for a run of `train`.
    """
    from rllib_per.experiments.comparing.comparison import ComparisonFolder
    from rllib_per.experiments.tuning.plan import TuningFolder

    if ComparisonFolder.holds(run) or TuningFolder.holds(run):
        for option, given in (
            ("--smoke", smoke),
            ("--set", overrides),
            ("--track", track),
            ("--quiet or --json-lines", output),
        ):
            if given:
                raise click.UsageError(f"{option} is for a run of `train`")
    if ComparisonFolder.holds(run):
        comparison = ComparisonFolder(run)
        with reported():
            compared_runs = comparison.compared_runs(allow_custom_classes=allow_custom_classes)
        click.echo("Resuming unpickles the runs' checkpoints: only resume what you trust.")
        sys.exit(run_comparison(comparison, compared_runs, address))
    if TuningFolder.holds(run):
        with reported():
            folder = TuningFolder.open(run)
            plan = folder.plan(allow_custom_classes=allow_custom_classes)
        click.echo("Resuming unpickles the search's state: only resume searches you trust.")
        sys.exit(run_search(plan, folder, address, resume=True))
    sys.exit(resume_run(run, overrides, allow_custom_classes, address, output, track, smoke=smoke))
