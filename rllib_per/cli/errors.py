# SPDX-License-Identifier: MIT
"""What a command says, and how it exits, where it cannot go on."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from rllib_per.checkpoints.files import CheckpointError
from rllib_per.error_notes import notes_of
from rllib_per.experiments.yaml_source import ConfigError, printable

NO_RESULT = FAILED = 1
USAGE_ERROR = 2
STORAGE_ERROR = 4


def complain(problem: object) -> None:
    """Say what is wrong in one line, whatever stands in it."""
    click.echo(f"error: {printable(str(problem))}", err=True)


@contextmanager
def reported() -> Iterator[None]:
    """Errors that a user can mend become a message and exit code 2, without a traceback.

    For what comes before training: an error on the way is none of usage; its traceback stays.
    """
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            complain(problem)
        sys.exit(USAGE_ERROR)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        complain(error)
        sys.exit(USAGE_ERROR)


@contextmanager
def saving() -> Iterator[None]:
    """Training of which not everything could be saved: a message and exit code 4."""
    try:
        yield
    except CheckpointError as error:
        complain(error)
        sys.exit(STORAGE_ERROR)


@contextmanager
def recorded(failure: Path) -> Iterator[None]:
    """An error of training whose traceback the run has in `failure`: two lines and exit code 1.

    It is the environment's mistake, a callback's or a module's as likely as ours.
    """
    try:
        yield
    except Exception as error:
        if not failure.is_file():
            raise
        _tell(error, failure)


@contextmanager
def starting() -> Iterator[None]:
    """`reported`, and any other error, as of a user's own code, in two lines and exit code 1.

    There is no run yet that could keep the traceback, so it is in a temporary file.
    """
    try:
        with reported():
            yield
    except Exception as error:
        with tempfile.NamedTemporaryFile(
            "w", prefix="rllib-per-failure-", suffix=".txt", delete=False
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        _tell(error, Path(file.name))


def _tell(error: Exception, path: Path) -> NoReturn:
    complain(summary(error))
    click.echo(printable(f"the whole traceback is in {path}"), err=True)
    sys.exit(FAILED)


def summary(error: BaseException) -> str:
    """Class and message of what went wrong first, and where, as far as the error has notes of it.

    Ray wraps errors of actors, and RLlib those of its own env runner.
    """
    while True:
        cause = getattr(error, "cause", None) or (error.__cause__ if not str(error) else None)
        if not isinstance(cause, BaseException):
            break
        error = cause
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    notes = ", ".join(notes_of(error))
    return f"{said} ({notes})" if notes else said


class _Unbroken:
    """A stream that nobody may be reading any more, or whose disk is full: training goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As of a stream; what can't be written is lost."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """As of a stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        """A pipe or terminal that is closed stays so; a disk may have room again."""
        if error.errno not in (errno.EPIPE, errno.EIO):
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def unbroken_output() -> Iterator[None]:
    """Output into a pipe that is closed, a terminal that is gone or a full disk ends nothing."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Unbroken(sys.stdout), _Unbroken(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
