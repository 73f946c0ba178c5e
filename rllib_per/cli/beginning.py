# SPDX-License-Identifier: MIT
"""`list` and `init`: what there is to train, and a file to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from rllib_per.cli.errors import reported
from rllib_per.cli.options import allow_custom_classes
from rllib_per.experiments.shipped import missing_extra, shipped_names, title_of
from rllib_per.experiments.yaml_source import printable
from rllib_per.extras import how_to_install


@click.command("list", short_help="List the experiments that come with it.")
def list_experiments() -> None:
    """List the experiments that come with rllib-per: `train` and `config` take their names.

    Those below tune/ are for `tune`. Where an extra is missing, it says how to install it.
    """
    names = shipped_names()
    width = max(map(len, names))
    for name in names:
        extra = missing_extra(name)
        needed = "" if extra is None else f" (needs {how_to_install(extra)})"
        click.echo(f"{name:{width}}  {title_of(name)}{needed}")


@click.command(short_help="Write a commented file for an environment.")
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--env", required=True, metavar="ID", help="What is to be learned.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="environment.KEY=VALUE",
    help="What the environment needs, e.g. --set environment.env_config={is_slippery: false}.",
)
@allow_custom_classes
def init(path: Path, env: str, overrides: tuple[str, ...], allow_custom_classes: bool) -> None:
    """Write a commented YAML file that trains the environment --env, to begin with.

    Its values are chosen by the environment's spaces. FILE must not exist yet.
    """
    for assignment in overrides:
        if not assignment.lstrip().startswith("environment."):
            raise click.UsageError(
                f"init takes settings of the environment only, others are for the file: got --set "
                f"{assignment}"
            )
    if path.exists():
        raise click.UsageError(f"{path} exists already: give another name, or remove it first")
    with reported():
        from rllib_per.experiments.starter import starter

        text = starter(env, overrides, allow_custom_classes=allow_custom_classes)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    option = " --allow-custom-classes" if allow_custom_classes else ""
    command = f"rllib-per train {shlex.quote(str(path))}{option}"
    click.echo(printable(f"{path}: look at it, then `{command}`"))
