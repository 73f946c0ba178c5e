# SPDX-License-Identifier: MIT
"""Folders that are whole or not there: filled under another name, sealed, then renamed.

A manifest lists the name, size and SHA-256 of every file in a folder. A folder within it that has
a manifest of its own is listed by that manifest alone, so a file is read once when it is verified,
and not at all when it is sealed together with others.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from rllib_per.checkpoints.files import (
    CheckpointError,
    Fingerprint,
    read_versioned,
    sync,
    unreadable,
    write_versioned,
)

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 2

# What is being filled, what it replaces, and what is being removed have these names meanwhile.
UNFINISHED = ".unfinished-"
REPLACED = ".replaced-"
REMOVED = ".removed-"

# Far more than any checkpoint of ours has; a file that size is not a manifest.
_MAX_MANIFEST_BYTES = 64 << 20


class AtomicFolder:
    """An empty folder that is to become `final`, in place of what is there.

    As a context manager it gives `folder`, commits it when the block ends, and discards it after
    an error. What a killed process left behind is removed; if it was killed while it replaced
    something, that is put back.

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

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.commit()
        finally:
            self.discard()

    def commit(self) -> Path:
        """Make it `final`, also after a power failure."""
        if self._final.is_dir() and any(self._final.iterdir()):
            self._final.rename(self._replaced)
        self.folder.rename(self._final)
        sync(self._final.parent)
        shutil.rmtree(self._replaced, ignore_errors=True)
        return self._final

    def discard(self) -> None:
        """Remove what was filled so far."""
        shutil.rmtree(self.folder, ignore_errors=True)


def put_back(final: Path) -> None:
    """Rename back what a process was replacing when it was killed."""
    replaced = final.with_name(REPLACED + final.name)
    if replaced.exists() and not final.exists():
        replaced.rename(final)


def remove(folder: Path) -> None:
    """Remove a folder that counts as whole while it has its name: rename it first.

    What can't be removed, now or because the process is killed, is left to `discard_unfinished`.
    """
    removed = folder.with_name(REMOVED + folder.name)
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(OSError):
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def discard_unfinished(folder: Path) -> None:
    """Remove what killed processes left in `folder`: half filled or half removed."""
    for prefix in (UNFINISHED, REMOVED):
        for left in folder.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def seal(folder: Path, known: Mapping[str, Fingerprint] | None = None) -> None:
    """Sync all that is in `folder`, and write its manifest last.

    Args:
        known: What is synced and summed up already, by its name within the folder.
    Raises:
        CheckpointError: A file is a link, or no file at all.
    """
    known = known or {}
    files = {}
    for name in _files(folder, folder):
        if name not in known:
            sync(folder / name)
        files[name] = known.get(name) or Fingerprint.of(folder / name)
    for inner in {parent for name in files for parent in (folder / name).parents}:
        if inner.is_relative_to(folder):
            sync(inner)
    write_versioned(folder / MANIFEST, MANIFEST_FORMAT, {"files": files}, indent=1)
    sync(folder)


def verify(
    folder: Path,
    *,
    ignore: frozenset[str] = frozenset(),
    strays: frozenset[str] = frozenset(),
) -> None:
    """Compare every file in `folder` with its manifest, and those of folders within.

    Args:
        ignore: Names of files and folders, at any depth, that are neither read nor missed.
        strays: Names of folders that may hold files that no manifest has, since readers open only
            those that it has.
    Raises:
        CheckpointError: A file is missing, added, changed, or no plain file; or the manifest can't
            be read or names a file elsewhere.
    """
    listed = {n: f for n, f in read_manifest(folder).items() if ignore.isdisjoint(n.split("/"))}
    present = {n for n in _files(folder, folder) if ignore.isdisjoint(n.split("/"))}
    for name in sorted(listed.keys() ^ present):
        if name not in listed and not strays.isdisjoint((folder / name).parts):
            continue
        state = "missing" if name in listed else "not in the manifest"
        raise CheckpointError(f"{folder / name} is {state}")
    for name, expected in listed.items():
        path = folder / name
        # A file of another size need not be read.
        if path.stat().st_size != expected.num_bytes or Fingerprint.of(path) != expected:
            raise CheckpointError(f"{path} was changed or cut after it was saved")
    for name in listed:
        if _is_manifest(name):
            verify((folder / name).parent, ignore=ignore, strays=strays)


def read_manifest(folder: Path) -> dict[str, Fingerprint]:
    """The files that `folder` should have.

    Raises:
        CheckpointError: There is no manifest, or it is none.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise CheckpointError(
            f"{path} is missing: the checkpoint was not finished, or is of another program"
        )
    with unreadable(path):
        if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("it is no plain file of a sensible size")
        entries = read_versioned(path, MANIFEST_FORMAT)["files"].items()
        files = {str(n): Fingerprint(int(size), str(sha256)) for n, (size, sha256) in entries}
    for name in files:
        _check_name(path, name)
    return files


def _check_name(manifest: Path, name: str) -> None:
    """A manifest can be written by anyone: no name in it may lead out of its folder."""
    parts = name.split("/")
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise CheckpointError(
            f"{manifest} names {name!r}; files of a checkpoint must be below its folder"
        )


def _is_manifest(name: str) -> bool:
    return PurePosixPath(name).name == MANIFEST


def _files(root: Path, folder: Path) -> Iterator[str]:
    """Names of the files that the manifest of `root` is to list; never through a link."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            if (path / MANIFEST).exists():
                yield (path / MANIFEST).relative_to(root).as_posix()
            else:
                yield from _files(root, path)
        elif not entry.is_file(follow_symlinks=False):
            raise CheckpointError(f"{path} is a link or a device; a checkpoint has plain files")
        elif path != root / MANIFEST:
            yield path.relative_to(root).as_posix()
