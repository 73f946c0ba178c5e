# SPDX-License-Identifier: MIT
"""`export`: a run's policy as one file."""

from __future__ import annotations

from pathlib import Path

import click

from rllib_per.cli.errors import starting
from rllib_per.cli.options import FOLDER, allow_custom_classes, smoke_option
from rllib_per.cli.playing import load_policy
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.yaml_source import printable


@click.command(short_help="Write the saved policy to one file.")
@click.argument("run", type=FOLDER)
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="policy.onnx, policy.pt2 (torch.export) or run.zip, for `evaluate` and `play`.",
)
@smoke_option("Nothing is left out: it takes seconds.")
@allow_custom_classes
def export(run: Path, to: Path, smoke: bool, allow_custom_classes: bool) -> None:
    """Write RUN's saved policy to one file: Q-values and greedy actions of observations.

    Reads YAML and safetensors only. The suffix of --to says the format.
    """
    with starting():
        folder = RunFolder.open(run)
        experiment = folder.experiment(allow_custom_classes=allow_custom_classes)
        from rllib_per.experiments.exporting import check_target
        from rllib_per.experiments.exporting import export as write

        check_target(to)
        write(folder, load_policy(folder, experiment), to)
    click.echo(printable(f"{to}: {to.stat().st_size:,} bytes"))
