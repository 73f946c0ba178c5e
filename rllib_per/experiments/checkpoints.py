# SPDX-License-Identifier: MIT
"""A run's checkpoints: each whole or not there, saved while training goes on, and verified."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

from ray.exceptions import RayError

from rllib_per.checkpoints.archive import PendingSave
from rllib_per.checkpoints.files import CheckpointError
from rllib_per.checkpoints.folders import (
    AtomicFolder,
    discard_unfinished,
    remove,
    seal,
    verify,
)
from rllib_per.replay import TrainingDivergedError
from rllib_per.sharding.shard import ShardNotStartedError

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{12,})(?:-(\d+))?")

# What a disk, a network or a lost process may do to a save.
_SAVE_ERRORS = (OSError, CheckpointError, RayError, ShardNotStartedError)


class CheckpointSeries:
    """Saves one checkpoint after another, and keeps the newest.

    A save that fails leaves nothing behind and changes nothing: training goes on, loudly, and ends
    when saving goes on failing, for a run that is never saved is not worth much.

    Args:
        folder: Where they go, of this process alone; what a killed one left half done is removed.
        keep: How many stay.
        max_failures: This many in a row end training.
        report: Is told what went wrong.
        on_saved: Is told of every checkpoint, before older ones go.
    Attributes:
        num_failed_lifetime: Saves that failed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        max_failures: int,
        report: Callable[[str], None],
        on_saved: Callable[[Path], None] = lambda saved: None,
    ) -> None:
        self._folder, self._keep = folder, keep
        self._max_failures, self._report, self._on_saved = max_failures, report, on_saved
        self._unfinished: AtomicFolder | None = None
        self._save: PendingSave | None = None
        self._num_failed_in_a_row = 0
        self.num_failed_lifetime = 0
        discard_unfinished(folder)

    def start(self, env_steps: int, write: Callable[[Path], PendingSave]) -> None:
        """Let `write` start a checkpoint; the last one is finished first.

        Raises:
            CheckpointError: Too many have failed in a row.
        """
        self.finish()
        self._attempt(lambda: self._start(env_steps, write))

    def poll(self) -> None:
        """Finish the checkpoint that is under way, if that takes no waiting. Raises as `start`."""
        self._attempt(self._finish_if_done)

    def finish(self) -> None:
        """Wait until no checkpoint is under way. Raises as `start`."""
        self._attempt(self._finish)

    def abandon(self) -> None:
        """Give up a checkpoint that is under way."""
        self._discard()

    def require_saved(self) -> None:
        """Raises CheckpointError if the last checkpoint failed."""
        if self._num_failed_in_a_row:
            raise CheckpointError(
                f"the last checkpoint could not be saved to {self._folder}: resuming goes back to "
                f"{self._last}; what else could be written is there"
            )

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except TrainingDivergedError:  # What a shard had to say all along.
            self._discard()
            raise
        except _SAVE_ERRORS as error:
            self._give_up(error)
        except BaseException:
            self._discard()
            raise

    def _start(self, env_steps: int, write: Callable[[Path], PendingSave]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        discard_unfinished(self._folder)
        self._unfinished = AtomicFolder(self._free_name(env_steps))
        self._save = write(self._unfinished.folder)

    def _finish_if_done(self) -> None:
        if self._save is not None and self._save.is_done:
            self._finish()

    def _finish(self) -> None:
        if self._save is None or self._unfinished is None:
            return
        self._save.finish()
        seal(self._unfinished.folder)
        saved = self._unfinished.commit()
        self._unfinished = self._save = None
        self._num_failed_in_a_row = 0
        self._on_saved(saved)
        # What is newer than what was just saved was passed over when this run was resumed.
        before = [old for old in _newest_first(self._folder) if _order(old) < _order(saved)]
        for old in set(_newest_first(self._folder)) - {saved, *before[: self._keep - 1]}:
            remove(old)

    def _give_up(self, error: BaseException) -> None:
        self._discard()
        self.num_failed_lifetime += 1
        self._num_failed_in_a_row += 1
        message = (
            f"a checkpoint could not be saved to {self._folder} ({self._num_failed_in_a_row} in a "
            f"row): {error}"
        )
        if self._num_failed_in_a_row >= self._max_failures:
            raise CheckpointError(
                f"{message}; training stops after {self._max_failures}: make room there; resuming "
                f"goes back to {self._last}"
            ) from error
        self._report(f"{message}; resuming would go back to {self._last}")

    @property
    def _last(self) -> str:
        """The newest checkpoint there is, for messages."""
        newest = next(iter(_newest_first(self._folder)), None)
        return "the beginning, for there is no checkpoint yet" if newest is None else newest.name

    def _discard(self) -> None:
        if self._unfinished is not None:
            self._unfinished.discard()
        self._unfinished = self._save = None

    def _free_name(self, env_steps: int) -> Path:
        """Of several with the same env steps, later ones have a number, which grows."""
        orders = (_order(checkpoint) for checkpoint in _newest_first(self._folder))
        newest = max((repeat for steps, repeat in orders if steps == env_steps), default=0)
        number = f"-{newest + 1}" if newest else ""
        return self._folder / f"step-{env_steps:012d}{number}"


def newest_checkpoint(folder: Path, *, ignore: frozenset[str] = frozenset()) -> Path:
    """The newest checkpoint that is whole; a damaged one is named in a warning and passed over.

    Args:
        ignore: Names of files and folders in it that need not be whole.
    Raises:
        CheckpointError: There is none; the message names what is wrong with each.
    """
    errors = []
    for checkpoint in _newest_first(folder):
        try:
            verify(checkpoint, ignore=ignore)
        except CheckpointError as error:
            _logger.warning("passed over: %s", error)
            errors.append(str(error))
        else:
            return checkpoint
    found = "; ".join(errors) or "there is none at all"
    raise CheckpointError(f"{folder} holds no whole checkpoint to resume from: {found}")


def _newest_first(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*") if _NAME.fullmatch(p.name)), key=_order)[::-1]


def _order(checkpoint: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1]), int(match[2] or 1)
