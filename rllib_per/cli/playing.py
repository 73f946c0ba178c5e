# SPDX-License-Identifier: MIT
"""`evaluate` and `play`: what a saved policy does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rllib_per.cli.errors import starting
from rllib_per.cli.options import allow_custom_classes, saved_run, smoke_option
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.run_archive import opened
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.yaml_source import printable

SMOKE_EPISODES = 2
SMOKE_FRAMES = 100


@click.command(short_help="Play the saved policy for a score.")
@saved_run
@click.option("--episodes", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with RLlib's keys.")
@smoke_option(f"At most {SMOKE_EPISODES} episodes.")
@allow_custom_classes
def evaluate(
    run: Path,
    episodes: int,
    seed: int,
    as_json: bool,
    smoke: bool,
    allow_custom_classes: bool,
) -> None:
    """Play RUN's saved policy greedily. Reads YAML and safetensors only.

    RUN is a run's folder, or the zip file that `export` made of it.
    """
    if smoke:
        episodes = min(episodes, SMOKE_EPISODES)
    with starting():
        with opened(run) as folder:
            label = folder.label
            experiment = folder.experiment(allow_custom_classes=allow_custom_classes)
            policy = load_policy(folder, experiment)
        evaluation = policy.evaluate(episodes, experiment.evaluation.num_envs, seed)
    summary = evaluation.summary() | {"seed": seed}
    if as_json:
        click.echo(json.dumps(summary))
        return
    from rich.table import Table

    from rllib_per.experiments.terminal import PlainConsole

    click.echo(printable(label))
    table = Table(show_header=False)
    for name, value in summary.items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    PlainConsole().print(table)


@click.command(short_help="Watch the saved policy play.")
@saved_run
@click.option(
    "--video",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Record an .mp4 or a .gif instead of playing in the terminal.",
)
@click.option("--games", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@smoke_option(f"The first {SMOKE_FRAMES} frames of one game.")
@allow_custom_classes
def play(
    run: Path,
    video: Path | None,
    games: int,
    seed: int,
    smoke: bool,
    allow_custom_classes: bool,
) -> None:
    """Play whole games of RUN's saved policy, in the terminal or into a video.

    Reads YAML and safetensors only.
    """
    with starting():
        with opened(run) as folder:
            experiment = folder.experiment(allow_custom_classes=allow_custom_classes)
            policy = load_policy(folder, experiment)
        from rllib_per.experiments.terminal import PlainConsole
        from rllib_per.experiments.terminal_games import show_games
        from rllib_per.experiments.video import record_games

        games, most = (1, SMOKE_FRAMES) if smoke else (games, None)
        if video is None:
            returns = show_games(
                policy, PlainConsole(), num_games=games, seed=seed, max_frames=most
            )
        else:
            returns = record_games(policy, video, num_games=games, seed=seed, max_frames=most)
    played = ", ".join(f"{value:g}" for value in returns)
    what = f"returns {played}" if played else "the beginning of a game"
    click.echo(printable(what if video is None else f"{video}: {what}"))


def load_policy(run: RunFolder, experiment: ExperimentConfig) -> Any:
    """The run's `GreedyPolicy`, without RLlib's notices."""
    from rllib_per.experiments.ray_session import quiet_logs

    quiet_logs()
    from rllib_per.experiments.evaluation import GreedyPolicy

    return GreedyPolicy.load(run, experiment)
