# SPDX-License-Identifier: MIT
"""A folder that is filled beside its place, and is there at once or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rllib_per.checkpoints.durable import sync

# What is filled, and what it replaces, have names that no one looks for.
UNFINISHED = ".unfinished-"
REPLACED = ".replaced-"


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
        if self._replaced.exists() and not final.exists():
            self._replaced.rename(final)
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


def discard_unfinished(folder: Path) -> None:
    """Remove what killed processes have left in `folder`."""
    for unfinished in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
