# SPDX-License-Identifier: MIT
"""A folder that is filled beside its place, and is there at once or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rllib_per.checkpoints.durable import sync

# What is filled, what it replaces, and what is on its way out have names that no one looks for.
UNFINISHED = ".unfinished-"
REPLACED = ".replaced-"
REMOVED = ".removed-"


class Beside:
    """An empty folder that is to become `final`, in place of what is there.

    What a killed process left behind is removed; if it was killed while it replaced something, that
    is put back.

    Attributes:
        folder: To be filled.
    """

    def __init__(self, final: Path) -> None:
        self._final = final
        self._replaced = final.with_name(REPLACED + final.name)
        put_back(final)
        shutil.rmtree(self._replaced, ignore_errors=True)
        self.folder = final.with_name(UNFINISHED + final.name)
        self.discard()
        self.folder.mkdir(parents=True)

    def commit(self) -> Path:
        """Now it is `final`, also after a power failure."""
        if self._final.is_dir() and any(self._final.iterdir()):
            self._final.rename(self._replaced)
        self.folder.rename(self._final)
        sync(self._final.parent)
        shutil.rmtree(self._replaced, ignore_errors=True)
        return self._final

    def discard(self) -> None:
        """Remove what was filled so far."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def filled_beside(final: Path) -> Iterator[Path]:
    """A `Beside` that is committed when the block ends, and discarded after an error."""
    beside = Beside(final)
    try:
        yield beside.folder
        beside.commit()
    finally:
        beside.discard()


def put_back(final: Path) -> None:
    """Of a process that was killed while it replaced `final`: what was there before."""
    replaced = final.with_name(REPLACED + final.name)
    if replaced.exists() and not final.exists():
        replaced.rename(final)


def remove(folder: Path) -> None:
    """Remove a folder that counts as whole while it has its name: the name goes first.

    What can't be removed, now or because the process is killed, is left to `discard_unfinished`.
    """
    removed = folder.with_name(REMOVED + folder.name)
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(OSError):
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def discard_unfinished(folder: Path) -> None:
    """Remove what killed processes have left in `folder`: half filled or half removed."""
    for prefix in (UNFINISHED, REMOVED):
        for left in folder.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
