# SPDX-License-Identifier: MIT
"""`rllib-per`: train, tune, compare, resume, evaluate, play, plot, doctor and config.

Ray, torch and matplotlib are imported by the commands that use them, after the configuration has
been checked, so that help and configuration errors come at once.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rllib_per.checkpoints.errors import CheckpointError
from rllib_per.experiments.experiment import ExperimentConfig, load_experiment
from rllib_per.experiments.interruption import EXIT_CODE
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.run_lock import run_lock
from rllib_per.experiments.yaml_source import ConfigError

if TYPE_CHECKING:
    from rllib_per.experiments.comparison import ComparisonFolder, Contestant
    from rllib_per.experiments.search_plan import SearchPlan
    from rllib_per.experiments.tuning_folder import TuningFolder

USAGE_ERROR = 2
STORAGE_ERROR = 4

Command = TypeVar("Command", bound=Callable[..., Any])

RUNS = Path("runs")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

allow_custom_classes = click.option(
    "--allow-custom-classes",
    is_flag=True,
    help="Import the classes that the YAML names by dotted path: their code will run.",
)

cluster_address = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    metavar="HOST:PORT",
    help="Run on this Ray cluster; auto: on the one that this machine belongs to.",
)


SMOKE_EPISODES = 2
SMOKE_FRAMES = 100
SMOKE_ANSWER_S = 10.0


def smoke_option(text: str) -> Callable[[Command], Command]:
    """`--smoke`, which every command has that runs something: does it work at all?"""
    return click.option("--smoke", is_flag=True, help=text)


def experiment_options(command: Command) -> Command:
    """The options with which a configuration can be changed."""
    for option in (
        allow_custom_classes,
        smoke_option("A tiny budget: does it run at all?"),
        click.option("--seed", type=int, help="Replaces the configuration's seed."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Replaces one setting, e.g. --set replay.alpha=0.5; may be repeated.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rllib-per")
def main() -> None:
    """Prioritized experience replay and Ape-X dueling double DQN on RLlib."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)


@main.command()
@click.argument("config", type=_FILE, required=False)
@experiment_options
@click.option("--runs", "root", type=click.Path(path_type=Path), default=RUNS, show_default=True)
@click.option("--resume", type=_FOLDER, metavar="RUN", help="Go on from RUN's newest checkpoint.")
@cluster_address
def train(
    config: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    smoke: bool,
    allow_custom_classes: bool,
    root: Path,
    resume: Path | None,
    address: str | None,
) -> None:
    """Train the experiment CONFIG into runs/<config>/<time>.

    Exit code 0: the target is met (or none was set); 3: the budget ended first; 4: checkpoints
    could not be saved; 130: interrupted, after a checkpoint. Ctrl-C twice leaves at once.
    """
    if (config is None) == (resume is None):
        raise click.UsageError("give either CONFIG or --resume RUN")
    if resume is not None and seed is not None:
        raise click.UsageError("--resume goes on as the run began: no --seed")
    if resume is not None and smoke:
        sys.exit(_rehearse(resume, overrides, allow_custom_classes, address))
    with _reported():
        if resume is not None:
            run, experiment = _reopen(resume, overrides, allow_custom_classes)
        else:
            assert config is not None
            experiment = load_experiment(
                config,
                overrides,
                seed=seed,
                smoke=smoke,
                allow_custom_classes=allow_custom_classes,
            )
            from rllib_per.experiments.environment_check import check_environment

            check_environment(experiment)
            run = RunFolder.create(root, config.stem, experiment)
    sys.exit(_train(experiment, run, address, resume=resume is not None))


@main.command()
@click.argument("config", type=_FILE)
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

    Exit code 0: the best trial met the target (or none was set); 3: no trial did; 130:
    interrupted, to be taken up with `resume`.
    """
    from rllib_per.experiments.search_plan import load_plan

    with _reported():
        plan = load_plan(
            config, overrides, seed=seed, smoke=smoke, allow_custom_classes=allow_custom_classes
        )
        from rllib_per.experiments.environment_check import check_environment
        from rllib_per.experiments.tuning_folder import TuningFolder

        check_environment(plan.config)
        folder = TuningFolder.create(root, config.stem, plan)
    sys.exit(_tune(plan, folder, address, resume=False))


@main.command()
@click.argument("config", type=_FILE)
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
    from rllib_per.experiments.comparison import ComparisonFolder, plan_comparison

    names = [name.strip() for name in replays.split(",") if name.strip()]
    with _reported():
        contestants, target = plan_comparison(
            config,
            names,
            seeds or (1 if smoke else 3),
            overrides,
            seed=seed,
            smoke=smoke,
            allow_custom_classes=allow_custom_classes,
        )
        from rllib_per.experiments.comparison_runs import check_all
        from rllib_per.experiments.ray_session import quiet_logs

        quiet_logs()
        check_all(contestants)
        folder = ComparisonFolder.create(root, config.stem, contestants, target)
    sys.exit(_compare(folder, contestants, address))


@main.command()
@click.argument("run", type=_FOLDER)
@smoke_option("Of a run of `train`: try one iteration on a copy, and throw it away.")
@allow_custom_classes
@cluster_address
def resume(run: Path, smoke: bool, allow_custom_classes: bool, address: str | None) -> None:
    """Go on with RUN, of `train`, `tune` or `compare`, where it stopped. Exit codes as theirs."""
    from rllib_per.experiments.comparison import ComparisonFolder
    from rllib_per.experiments.tuning_folder import TuningFolder

    if smoke:
        if ComparisonFolder.holds(run) or TuningFolder.holds(run):
            raise click.UsageError("--smoke is for a run of `train`")
        sys.exit(_rehearse(run, (), allow_custom_classes, address))
    with _reported():
        if ComparisonFolder.holds(run):
            comparison = ComparisonFolder(run)
            contestants = comparison.contestants(allow_custom_classes=allow_custom_classes)
            click.echo("Resuming unpickles the runs' checkpoints: only resume what you trust.")
            sys.exit(_compare(comparison, contestants, address))
        if not TuningFolder.holds(run):
            again, experiment = _reopen(run, (), allow_custom_classes)
        else:
            folder = TuningFolder.open(run)
            plan = folder.plan(allow_custom_classes=allow_custom_classes)
            folder.record(plan)
            click.echo("Resuming unpickles the search's state: only resume searches you trust.")
            sys.exit(_tune(plan, folder, address, resume=True))
    sys.exit(_train(experiment, again, address, resume=True))


def _rehearse(
    path: Path, overrides: tuple[str, ...], allow_custom_classes: bool, address: str | None
) -> int:
    """Go on with a copy of a run for one iteration; the run stays as it is."""
    from rllib_per.experiments.rehearsal import ONE_ITERATION, rehearsal

    with ExitStack() as stack:
        with _reported():
            copy = stack.enter_context(rehearsal(RunFolder.open(path)))
            changes = (*ONE_ITERATION, *overrides)
            again, experiment = _reopen(copy.path, changes, allow_custom_classes)
        exit_code = _train(experiment, again, address, resume=True)
    click.echo(f"{path} can go on; the copy on which this was tried is removed")
    return exit_code


def _reopen(
    path: Path, overrides: tuple[str, ...], allow_custom_classes: bool
) -> tuple[RunFolder, ExperimentConfig]:
    """A training run that is to go on."""
    run = RunFolder.open(path)
    experiment = run.experiment(overrides, allow_custom_classes=allow_custom_classes)
    click.echo("Resuming unpickles the run's checkpoint: only resume runs you trust.")
    return run, experiment


def _compare(
    folder: ComparisonFolder, contestants: Sequence[Contestant], address: str | None
) -> int:
    from rich.console import Console

    from rllib_per.experiments.ray_session import num_cpus, ray_session

    console = Console()
    largest = max((c.experiment for c in contestants), key=num_cpus)
    with _interruptible(), _reported(), ray_session(largest, address):
        from rllib_per.experiments.comparison_report import report
        from rllib_per.experiments.comparison_runs import train_all

        is_complete = train_all(folder, contestants, console)
        if is_complete:
            console.print(report(folder, contestants))
    for replay, ignored in {c.replay: c.ignored for c in contestants}.items():
        if ignored:
            click.echo(f"{replay} has no {', '.join(ignored)}: left out.")
    if not is_complete:
        click.echo(f"interrupted; go on with `rllib-per resume {folder.path}`")
        return EXIT_CODE
    click.echo(folder.plot)
    return 0


def _tune(plan: SearchPlan, folder: TuningFolder, address: str | None, *, resume: bool) -> int:
    from rllib_per.experiments.ray_session import num_cpus, ray_session

    largest = max((plan.config, *plan.variants()), key=num_cpus)
    with _interruptible(), _reported():
        from rllib_per.experiments import tuning

        tuning.set_tunes_environment()
        with ray_session(largest, address):
            tuner = tuning.resume(folder) if resume else tuning.start(plan, folder)
            ending = tuning.run(tuner, plan, folder)
    click.echo(f"{ending.replace('_', ' ')}: {folder.path}")
    return tuning.EXIT_CODES[ending]


def _train(
    experiment: ExperimentConfig, run: RunFolder, address: str | None, *, resume: bool
) -> int:
    from rich.console import Console

    from rllib_per.experiments.ray_session import ray_session

    console = Console()
    with _interruptible(), ExitStack() as session:
        with _reported():
            session.enter_context(run_lock(run.checkpoints))
            if resume:
                run.record(experiment)
            session.enter_context(ray_session(experiment, address))
        from rllib_per.experiments.progress import ProgressDisplay
        from rllib_per.experiments.training import EXIT_CODES, Training

        display = ProgressDisplay(console, experiment.stop, run.label)
        with _reported():
            training = Training(experiment, run, display, resume=resume)
        try:
            ending = training.run()
        except CheckpointError as error:
            click.echo(f"error: {error}", err=True)
            return STORAGE_ERROR
    result = json.loads(run.result.read_text(encoding="utf-8"))
    display.say(f"{ending.replace('_', ' ')} after {result['env_steps']:,} env steps: {run.path}")
    if result["evaluation"] is not None:
        display.say(
            "greedy return {episode_return_mean:.1f} over {num_episodes} episodes".format(
                **result["evaluation"]
            )
        )
    return EXIT_CODES[ending]


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--episodes", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with RLlib's keys.")
@smoke_option(f"At most {SMOKE_EPISODES} episodes.")
@allow_custom_classes
def evaluate(
    run: Path, episodes: int, seed: int, as_json: bool, smoke: bool, allow_custom_classes: bool
) -> None:
    """Play RUN's saved policy greedily. Reads YAML and safetensors only."""
    if smoke:
        episodes = min(episodes, SMOKE_EPISODES)
    with _reported():
        folder = RunFolder.open(run)
        experiment = folder.experiment(allow_custom_classes=allow_custom_classes)
        policy = _load_policy(folder, experiment)
        evaluation = policy.evaluate(episodes, experiment.evaluation.num_envs, seed)
    summary = evaluation.summary() | {"seed": seed}
    if as_json:
        click.echo(json.dumps(summary))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=folder.label, show_header=False)
    for name, value in summary.items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--video", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--games", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@smoke_option(f"The first {SMOKE_FRAMES} frames of one game.")
@allow_custom_classes
def play(
    run: Path, video: Path, games: int, seed: int, smoke: bool, allow_custom_classes: bool
) -> None:
    """Record whole games of RUN's saved policy as an mp4. Reads YAML and safetensors only."""
    with _reported():
        folder = RunFolder.open(run)
        policy = _load_policy(folder, folder.experiment(allow_custom_classes=allow_custom_classes))
        from rllib_per.experiments.video import record_games

        returns = record_games(
            policy,
            video,
            num_games=1 if smoke else games,
            seed=seed,
            max_frames=SMOKE_FRAMES if smoke else None,
        )
    played = ", ".join(f"{value:g}" for value in returns)
    click.echo(f"{video}: returns {played}" if played else f"{video}: the beginning of a game")


@main.command()
@click.argument("runs", type=_FOLDER, nargs=-1, required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@smoke_option("The first of them only.")
def plot(runs: tuple[Path, ...], out: Path, smoke: bool) -> None:
    """Draw the learning curves of RUNS into one picture."""
    from rllib_per.experiments.plotting import plot_runs

    with _reported():
        plot_runs([RunFolder.open(run) for run in (runs[:1] if smoke else runs)], out)
    click.echo(out)


@main.command()
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
def doctor(address: str | None, storage: Path, as_json: bool, smoke: bool) -> None:
    """Look for what an experiment would miss: on this machine, or on every node of a cluster.

    Without --address Ray is not started. Exit code 0: all is well, 1: there are warnings, 2: there
    are errors.
    """
    from rllib_per.experiments import doctor as checks

    findings = checks.examine(
        address, storage, answer_s=SMOKE_ANSWER_S if smoke else checks.ANSWER_S
    )
    if as_json:
        click.echo(checks.as_json(findings))
    else:
        from rich.console import Console

        Console().print(checks.as_table(findings))
    sys.exit(checks.exit_code(findings))


@main.command("config")
@click.argument("path", type=_FILE, metavar="CONFIG")
@experiment_options
def show_config(
    path: Path,
    overrides: tuple[str, ...],
    seed: int | None,
    smoke: bool,
    allow_custom_classes: bool,
) -> None:
    """Print CONFIG with every default, as a run would save it."""
    with _reported():
        experiment = load_experiment(
            path, overrides, seed=seed, smoke=smoke, allow_custom_classes=allow_custom_classes
        )
    click.echo(experiment.to_yaml(), nl=False)


def _load_policy(run: RunFolder, experiment: ExperimentConfig) -> Any:
    from rllib_per.experiments.ray_session import quiet_logs

    quiet_logs()
    from rllib_per.experiments.evaluation import GreedyPolicy

    return GreedyPolicy.load(run, experiment)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C before training has begun: there is nothing to save."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_CODE)


@contextmanager
def _reported() -> Iterator[None]:
    """Errors that a user can mend become a message and exit code 2, without a traceback."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(USAGE_ERROR)
    except (ValueError, RuntimeError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE_ERROR)
