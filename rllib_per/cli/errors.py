# SPDX-License-Identifier: MIT
"""What a command says, and how it exits, where it cannot go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from rllib_per.checkpoints.errors import CheckpointError
from rllib_per.experiments.interruption import EXIT_CODE
from rllib_per.experiments.yaml_source import ConfigError

NO_RESULT = 1
USAGE_ERROR = 2
STORAGE_ERROR = 4


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C before training has begun: there is nothing to save."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_CODE)


@contextmanager
def reported() -> Iterator[None]:
    """Errors that a user can mend become a message and exit code 2, without a traceback.

    For what comes before training: an error on the way is none of usage; its traceback stays.
    """
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(USAGE_ERROR)
    except (ValueError, RuntimeError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE_ERROR)


@contextmanager
def saving() -> Iterator[None]:
    """Training that ends because its checkpoints can't be saved: a message and exit code 4."""
    try:
        yield
    except CheckpointError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(STORAGE_ERROR)
