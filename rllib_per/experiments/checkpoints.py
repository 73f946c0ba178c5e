# SPDX-License-Identifier: MIT
"""Checkpoints that exist are whole: written beside, synced, listed in a manifest, then renamed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

MANIFEST = "manifest.json"
FORMAT = 1

_logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint that is not what its manifest says; the message names the file."""


def save_checkpoint(
    folder: Path, env_steps: int, write: Callable[[Path], None], *, keep: int
) -> Path:
    """Let `write` fill a new checkpoint, make it visible at once, and drop all but `keep`."""
    final = folder / f"step-{env_steps:012d}"
    beside = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        write(beside)
        _seal(beside)
        shutil.rmtree(final, ignore_errors=True)
        beside.rename(final)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _sync(folder)
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return final


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint that is whole; a damaged one is named in a warning and passed over.

    Raises:
        CheckpointError: There is none.
    """
    for checkpoint in _newest_first(folder):
        try:
            verify_checkpoint(checkpoint)
        except CheckpointError as error:
            _logger.warning("passed over: %s", error)
        else:
            return checkpoint
    raise CheckpointError(f"{folder} holds no whole checkpoint to resume from")


def verify_checkpoint(checkpoint: Path) -> None:
    """Compare every file's size and SHA-256 with the manifest.

    Raises:
        CheckpointError: A file is missing, added or changed, or the manifest cannot be read.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        version, listed = manifest["format"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint / MANIFEST} cannot be read: {error}") from error
    if version != FORMAT:
        raise CheckpointError(f"{checkpoint} has format {version!r}; this version reads {FORMAT}")
    present = {str(path.relative_to(checkpoint)): path for path in _files(checkpoint)}
    for name in sorted(listed.keys() ^ present.keys()):
        state = "missing" if name in listed else "not in the manifest"
        raise CheckpointError(f"{checkpoint / name} is {state}")
    for name, path in present.items():
        if _fingerprint(path) != listed[name]:
            raise CheckpointError(f"{path} was changed or cut after it was saved")


def _seal(checkpoint: Path) -> None:
    files = {str(path.relative_to(checkpoint)): _fingerprint(path) for path in _files(checkpoint)}
    manifest = checkpoint / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, "files": files}, indent=1), encoding="utf-8")
    for path in (*_files(checkpoint), manifest, *_folders(checkpoint)):
        _sync(path)


def _fingerprint(path: Path) -> list[int | str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return [file.tell(), digest.hexdigest()]


def _files(checkpoint: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted(checkpoint.rglob("*"))
        if not path.is_dir() and path != checkpoint / MANIFEST
    )


def _folders(checkpoint: Path) -> Iterator[Path]:
    yield from (path for path in checkpoint.rglob("*") if path.is_dir())
    yield checkpoint


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)
