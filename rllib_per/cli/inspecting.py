# SPDX-License-Identifier: MIT
"""`plot`, `config` and `doctor`: look at runs, experiments and machines."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rllib_per.cli.errors import reported
from rllib_per.cli.options import (
    CONFIG,
    FOLDER,
    RUNS,
    cluster_address,
    experiment_options,
    smoke_option,
)
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.yaml_source import printable, read_yaml

SMOKE_ANSWER_S = 10.0


@click.command(short_help="Draw the learning curves of runs.")
@click.argument("runs", type=FOLDER, nargs=-1, required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--facet", is_flag=True, help="A panel for each environment.")
@smoke_option("The first of them only.")
def plot(runs: tuple[Path, ...], out: Path, facet: bool, smoke: bool) -> None:
    """Draw the learning curves of RUNS into one picture; a run that is named twice counts once.

    All must be of one environment, unless --facet is given.
    """
    from rllib_per.experiments.plotting import plot_runs

    once = list(dict.fromkeys(run.resolve() for run in runs))  # `latest` is one of them.
    with reported():
        chosen = once[:1] if smoke else once
        plot_runs([RunFolder.open(run) for run in chosen], out, facet=facet)
    click.echo(printable(str(out)))


@click.command("config", short_help="Print an experiment with every default.")
@click.argument("path", type=CONFIG, metavar="CONFIG")
@experiment_options
def show_config(
    path: Path,
    overrides: tuple[str, ...],
    seed: int | None,
    smoke: bool,
    allow_custom_classes: bool,
) -> None:
    """Print CONFIG with every default, as a run would save it."""
    with reported():
        experiment = load_experiment(
            path, overrides, seed=seed, smoke=smoke, allow_custom_classes=allow_custom_classes
        )
    click.echo(experiment.to_yaml(), nl=False)


@click.command(short_help="Look for what an experiment would miss.")
@click.argument("config", type=CONFIG, required=False)
@cluster_address
@click.option(
    "--storage",
    type=click.Path(path_type=Path),
    default=RUNS,
    show_default=True,
    help="Where runs are to be written.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@smoke_option(f"Wait for no node longer than {SMOKE_ANSWER_S:g} s.")
def doctor(
    config: Path | None, address: str | None, storage: Path, as_json: bool, smoke: bool
) -> None:
    """Look for what an experiment would miss: on this machine, or on every node of a cluster.

    With CONFIG, a file or a name that `rllib-per list` shows: also for what it needs.
    Without --address Ray is not started. Exit code 0: all is well, 1: there are warnings, 2: there
    are errors.
    """
    from rich.console import Console

    from rllib_per.experiments.doctor import report
    from rllib_per.experiments.doctor.facts import ANSWER_S

    needed, num_gpus = None, 0.0
    if config is not None:
        from rllib_per.experiments.needs import needed_extras, needed_gpus

        with reported():
            data = read_yaml(config).data
        needed, num_gpus = needed_extras(data), needed_gpus(data)
    answer_s = SMOKE_ANSWER_S if smoke else ANSWER_S
    findings = report.examine(address, storage, answer_s, needed=needed, num_gpus=num_gpus)
    if as_json:
        click.echo(report.as_json(findings))
    else:
        Console().print(report.as_table(findings))
    sys.exit(report.exit_code(findings))
