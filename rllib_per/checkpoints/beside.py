# SPDX-License-Identifier: MIT
"""A folder that is filled beside its place, and is there at once or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rllib_per.checkpoints.durable import sync

# What is filled has a name that no one looks for.
UNFINISHED = ".unfinished-"


@contextmanager
def filled_beside(final: Path) -> Iterator[Path]:
    """An empty folder which becomes `final` when the block ends; after an error it is removed.

    `final` must not exist, or be empty. What a killed process left behind is overwritten.
    """
    beside = final.with_name(UNFINISHED + final.name)
    remove(beside)
    beside.mkdir(parents=True)
    try:
        yield beside
        beside.rename(final)
        sync(final.parent)
    finally:
        remove(beside)


def remove(folder: Path) -> None:
    """Delete `folder` and all in it, as far as possible."""
    shutil.rmtree(folder, ignore_errors=True)
