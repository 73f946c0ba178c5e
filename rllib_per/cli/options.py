# SPDX-License-Identifier: MIT
"""Options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from rllib_per.experiments.import_path import enter_current_folder
from rllib_per.experiments.shipped import pretrained, shipped_file

Command = TypeVar("Command", bound=Callable[..., Any])

RUNS = Path("runs")


class _ConfigFile(click.ParamType):  # type: ignore[type-arg]  # Older clicks have none.
    """A YAML file, or the name of one that comes with the package."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if Path(value).is_file():
            return Path(value)
        try:
            return shipped_file(str(value))
        except FileNotFoundError as error:
            self.fail(str(error), param, ctx)


CONFIG = _ConfigFile()


def without_link(path: Path) -> Path:
    """What `path` is a link to, as `latest` is, which is another folder after the next run."""
    if not path.is_symlink():
        return path
    target = path.parent / path.readlink()
    shorter = Path(os.path.normpath(target))  # Another folder, if what comes before ".." is a link.
    return shorter if shorter.resolve() == target.resolve() else target


def run_of(path: Path) -> Path:
    """The run that is meant by `path`: by its own name, so that what is said of it stays true.

    A folder that has runs of one experiment stands for the latest of them.
    """
    latest = path / "latest"
    is_run = os.path.exists(path / "config.yaml") or not os.path.isdir(latest)
    return without_link(path if is_run else latest)


def _near(value: str) -> str:
    """Of the name of an experiment: where its runs are."""
    latest = RUNS / Path(value).stem / "latest"
    return f" Its latest run is {latest}." if os.path.isdir(latest) else ""


class _Folder(click.Path):
    """A run's folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return run_of(Path(os.fsdecode(super().convert(value, param, ctx))))
        except click.BadParameter as error:
            raise click.BadParameter(f"{error.message}{_near(str(value))}", ctx, param) from error


FOLDER = _Folder(exists=True, file_okay=False)


_PRETRAINED = f"{__name__}.pretrained"


def saved_run(command: Command) -> Command:
    """`run`: a folder, an archive of it, or with --pretrained the name of one of the package's."""

    def find(context: click.Context, parameter: click.Parameter, value: str) -> Path:
        path = Path(value)
        if context.meta[_PRETRAINED]:
            try:
                return pretrained(value)
            except FileNotFoundError as error:
                raise click.BadParameter(str(error), context, parameter) from error
        if path.exists():
            return run_of(path)
        problem = f"Path {value!r} does not exist.{_near(value)}"
        with suppress(FileNotFoundError):
            pretrained(value)
            problem += " A policy of that name comes with rllib-per: add --pretrained."
        raise click.BadParameter(problem, context, parameter)

    def remember(context: click.Context, _: click.Parameter, is_given: bool) -> None:
        context.meta[_PRETRAINED] = is_given

    argument = click.argument("run", callback=find)
    flag = click.option(
        "--pretrained",
        is_flag=True,
        is_eager=True,  # Before `run` is looked for.
        expose_value=False,
        callback=remember,
        help="RUN is the name of a policy that comes with rllib-per: cartpole.",
    )
    return flag(argument(command))


def _import_from_here(_: click.Context, __: click.Parameter, is_allowed: bool) -> bool:
    if is_allowed:
        enter_current_folder()
    return is_allowed


allow_custom_classes = click.option(
    "--allow-custom-classes",
    is_flag=True,
    callback=_import_from_here,
    help="Import the classes that the YAML names, also from its folder and the current one: their "
    "code will run.",
)

cluster_address = click.option(
    "--address",
    envvar="RAY_ADDRESS",
    metavar="HOST:PORT",
    help="Run on this Ray cluster; auto: on the one that this machine belongs to.",
)


def output_options(command: Command) -> Command:
    """What a training run prints, and who else is told."""
    for option in (
        click.option("--quiet", "output", flag_value="quiet", help="Print problems only."),
        click.option(
            "--json-lines", "output", flag_value="json", help="Print JSON, an event a line."
        ),
        click.option("--track", type=click.Choice(["wandb", "mlflow"]), help="Log there as well."),
    ):
        command = option(command)
    return command


def smoke_option(text: str) -> Callable[[Command], Command]:
    """`--smoke`, which every command has that runs something: does it work at all?"""
    return click.option("--smoke", is_flag=True, help=text)


changed_settings = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Replaces one setting, e.g. --set replay.alpha=0.5; may be repeated.",
)


def experiment_options(command: Command) -> Command:
    """The options with which a configuration can be changed."""
    for option in (
        allow_custom_classes,
        smoke_option("A tiny budget: does it run at all?"),
        click.option("--seed", type=int, help="Replaces the configuration's seed."),
        changed_settings,
    ):
        command = option(command)
    return command
