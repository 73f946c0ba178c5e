# SPDX-License-Identifier: MIT
"""Files that are on the disk, and known by size and checksum, once they are closed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

_CHUNK_BYTES = 1 << 20


class Fingerprint(NamedTuple):
    """How many bytes a file has, and their SHA-256."""

    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Read `path` and sum it up."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return cls(file.tell(), digest.hexdigest())


class DurableWriter:
    """Writes one file, and sums it up on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._num_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`, which is contiguous."""
        self._file.write(data)
        self._digest.update(data)
        self._num_bytes += memoryview(data).nbytes

    @property
    def fingerprint(self) -> Fingerprint:
        """Of what was written so far."""
        return Fingerprint(self._num_bytes, self._digest.hexdigest())


@contextmanager
def durable_file(path: Path) -> Iterator[DurableWriter]:
    """A new file that is synced when the block ends; its folder is not."""
    with path.open("xb") as file:
        yield DurableWriter(file)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
