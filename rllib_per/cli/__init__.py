# SPDX-License-Identifier: MIT
"""`rllib-per`: its verbs, and what all of them have in common.

Ray, torch and matplotlib are imported by the commands that use them, after the configuration has
been checked, so that help and configuration errors come at once.
"""

from __future__ import annotations

import logging
from typing import Any

import click

from rllib_per.cli.beginning import init, list_experiments
from rllib_per.cli.comparing import compare
from rllib_per.cli.errors import unbroken_output
from rllib_per.cli.exporting import export
from rllib_per.cli.inspecting import doctor, plot, show_config
from rllib_per.cli.playing import evaluate, play
from rllib_per.cli.resuming import resume
from rllib_per.cli.searching import tune
from rllib_per.cli.training import train
from rllib_per.experiments.import_path import leave_current_folder
from rllib_per.experiments.interruption import StartUp
from rllib_per.experiments.yaml_source import printable


class _PlainFormatter(logging.Formatter):
    """One line each, whatever stands in it; tracebacks come after it as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return printable(super().formatMessage(record))


class _Verbs(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        with unbroken_output(), StartUp():
            return super().invoke(ctx)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rllib-per")
def main() -> None:
    """Prioritized experience replay and Ape-X dueling double DQN on RLlib."""
    leave_current_folder()
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


for command in (
    list_experiments,
    init,
    train,
    tune,
    compare,
    resume,
    evaluate,
    play,
    export,
    plot,
    doctor,
    show_config,
):
    main.add_command(command)
