# SPDX-License-Identifier: MIT
"""`train`, and how a training run is taken up again."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rllib_per.cli.errors import recorded, reported, saving, starting
from rllib_per.cli.options import (
    CONFIG,
    FOLDER,
    RUNS,
    cluster_address,
    experiment_options,
    output_options,
)
from rllib_per.experiments.experiment import ExperimentConfig, load_experiment
from rllib_per.experiments.interruption import no_longer_than
from rllib_per.experiments.named_classes import option_for
from rllib_per.experiments.run_folder import EXIT_CODES, RunFolder, RunName
from rllib_per.experiments.run_lock import run_lock
from rllib_per.experiments.yaml_source import printable

if TYPE_CHECKING:
    from rllib_per.experiments.progress import Output, ProgressDisplay
    from rllib_per.experiments.trackers import Tracker

# How long Ray may take to end, and how long when a user is waiting for it.
_PATIENCE_S = 8.0
_PATIENCE_AFTER_SIGNAL_S = 3.0


@click.command(short_help="Train an experiment into a run's folder.")
@click.argument("config", type=CONFIG, required=False)
@click.option("--env", metavar="ID", help="In place of CONFIG: this environment, with defaults.")
@experiment_options
@click.option("--runs", "root", type=click.Path(path_type=Path), default=RUNS, show_default=True)
@click.option("--resume", type=FOLDER, metavar="RUN", help="Go on from RUN's newest checkpoint.")
@cluster_address
@output_options
def train(
    config: Path | None,
    env: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    smoke: bool,
    allow_custom_classes: bool,
    root: Path,
    resume: Path | None,
    address: str | None,
    output: Output | None,
    track: str | None,
) -> None:
    """Train the experiment CONFIG into runs/<game>-<config>-<seed>-<time>.

    runs/<config>/latest is the newest one; a run of --smoke only where all are of --smoke.

    CONFIG is a file, or a name that `rllib-per list` shows. With --env instead, what `rllib-per
    init` would write is trained.

    Exit code 0: the target is met (or none was set); 1: it failed, and failure.txt in its folder
    says why; 2: a mistake in what was asked; 3: the budget ended first; 4: not everything could be
    saved; 130: interrupted, after a checkpoint. Ctrl-C twice leaves at once.
    """
    if sum(given is not None for given in (config, env, resume)) != 1:
        raise click.UsageError("give one of CONFIG, --env ID and --resume RUN")
    if resume is not None:
        if seed is not None:
            raise click.UsageError("--resume goes on as the run began: no --seed")
        sys.exit(
            resume_run(resume, overrides, allow_custom_classes, address, output, track, smoke=smoke)
        )
    _check_track(track)
    with reported():
        name, experiment = _new(config, env, overrides, seed, smoke, allow_custom_classes)
        from rllib_per.experiments.environment_check import check_algorithm, check_environment

        with starting():
            check_environment(experiment)
        check_algorithm(experiment)
        run_name = RunName(experiment.environment.game, name, experiment.seed)
        run = RunFolder.create(root, experiment, run_name.stem)
    sys.exit(
        train_run(experiment, run, address, output, track, newest_in=root / name, is_smoke=smoke)
    )


def _new(
    config: Path | None,
    env: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    smoke: bool,
    allow_custom_classes: bool,
) -> tuple[str, ExperimentConfig]:
    """Name and experiment of a new run."""
    if config is not None:
        return config.stem, load_experiment(
            config, overrides, seed=seed, smoke=smoke, allow_custom_classes=allow_custom_classes
        )
    from rllib_per.experiments.starter import load_starter

    assert env is not None
    experiment = load_starter(
        env, overrides, seed=seed, smoke=smoke, allow_custom_classes=allow_custom_classes
    )
    return experiment.environment.game, experiment


def resume_run(
    path: Path,
    overrides: tuple[str, ...],
    allow_custom_classes: bool,
    address: str | None,
    output: Output | None,
    track: str | None,
    *,
    smoke: bool,
) -> int:
    """Go on with a run of `train`, or (`smoke`) with a copy for one iteration; the exit code."""
    if smoke:
        if track is not None:
            raise click.UsageError("of --smoke nothing stays: no --track")
        return _rehearse(path, overrides, allow_custom_classes, address, output)
    _check_track(track)
    with reported():
        run = RunFolder.open(path)
        experiment = run.experiment(overrides, allow_custom_classes=allow_custom_classes)
        ending = run.ending_under(experiment.stop)
    if ending is None:
        return train_run(experiment, run, address, output, track)
    from rllib_per.experiments.progress import make_display

    result = run.read_result()
    told = (
        f"{run.path} has ended ({ending.replace('_', ' ')}) after {result.env_steps:,} env "
        "steps: nothing is left to train. To go on, change what ended it: "
        f"{run.command_to_go_on(result, experiment.stop)}{option_for(experiment)}"
    )
    make_display(output or "table", experiment.stop).say(printable(told))
    return EXIT_CODES[ending]


def _rehearse(
    path: Path,
    overrides: tuple[str, ...],
    allow_custom_classes: bool,
    address: str | None,
    output: Output | None,
) -> int:
    """Go on with a copy of a run for one iteration; the run stays as it is."""
    from rllib_per.experiments.progress import make_display
    from rllib_per.experiments.rehearsal import ONE_ITERATION, rehearsal

    with ExitStack() as stack:
        with reported():
            copy = stack.enter_context(rehearsal(RunFolder.open(path)))
            changes = (*ONE_ITERATION, *overrides)
            experiment = copy.experiment(changes, allow_custom_classes=allow_custom_classes)
        exit_code = train_run(experiment, copy, address, output, is_rehearsal=True)
    if exit_code != EXIT_CODES["interrupted"]:
        told = f"{path} can go on; the copy on which this was tried is removed"
        make_display(output or "table", experiment.stop).say(printable(told))
    return exit_code


def train_run(
    experiment: ExperimentConfig,
    run: RunFolder,
    address: str | None,
    output: Output | None = None,
    track: str | None = None,
    *,
    newest_in: Path | None = None,
    is_smoke: bool = False,
    is_rehearsal: bool = False,
) -> int:
    """Train, and say how it ended; the exit code.

    Args:
        newest_in: The folder whose `latest` this new run is to be; None: the run goes on.
        is_smoke: It is new, and of `--smoke`.
    """
    from rllib_per.experiments.progress import make_display
    from rllib_per.experiments.ray_session import ray_session

    display = make_display(output or "table", experiment.stop)
    resume = newest_in is None
    if resume:
        display.say("Resuming unpickles the run's checkpoint: only resume runs you trust.")
    with ExitStack() as start, ExitStack() as session:
        if newest_in is not None:
            start.enter_context(run.starting(newest_in, is_smoke=is_smoke))
        with reported():
            session.enter_context(run_lock(run.checkpoints))
        from rllib_per.experiments.header import facts_of

        with starting():
            display.begin(facts_of(run, experiment))
        with reported():
            session.enter_context(ray_session(experiment, address, run.ray_log))
        from rllib_per.experiments.training import TrainingRun

        with starting(), ExitStack() as failed:
            tracker = None if track is None else _track(track, experiment, run, display)
            if tracker is not None:
                failed.callback(tracker.end, is_good=False)
            training = TrainingRun(
                experiment,
                run,
                display,
                resume=resume,
                is_rehearsal=is_rehearsal,
                tracker=tracker,
            )
            failed.pop_all()
            if resume:  # Settings that do not fit the checkpoint are refused by now.
                run.record(experiment)
        start.close()
        with recorded(run.failure), saving():
            ending = training.run()
        result = run.read_result()
        if not result.updates and ending != "interrupted":
            starts = experiment.training.num_steps_sampled_before_learning_starts
            display.warn(
                f"nothing was learned: the first update comes after {starts:,} transitions "
                "(training.num_steps_sampled_before_learning_starts)"
            )
        display.end(ending, result, run, option=option_for(experiment))
        # Ray may wait for processes that are dead.
        patience_s = _PATIENCE_AFTER_SIGNAL_S if ending == "interrupted" else _PATIENCE_S
        with no_longer_than(patience_s, EXIT_CODES[ending]):
            session.close()
    return EXIT_CODES[ending]


def _check_track(track: str | None) -> None:
    """Refuse --track where the package of that name is missing."""
    if track is not None:
        from rllib_per.experiments.trackers import check_installed

        with reported():
            check_installed(track)


def _track(
    name: str, experiment: ExperimentConfig, run: RunFolder, display: ProgressDisplay
) -> Tracker:
    from rllib_per.experiments.metrics_log import flat_settings
    from rllib_per.experiments.trackers import make_tracker

    settings = flat_settings(experiment.model_dump(mode="json"))
    return make_tracker(name, run, settings, display.warn)
