# SPDX-License-Identifier: MIT
"""Files of a checkpoint: synced and summed up when they are closed, checked when they are read.

JSON has a format number; arrays are .npy of a dtype and shape that the reader knows, never pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from rllib_per.arrays import Array

_CHUNK_BYTES = 1 << 20


class CheckpointError(RuntimeError):
    """A checkpoint that is not what its manifest says; the message names the file."""


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Errors in the block become a CheckpointError that names `path`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, RecursionError, SyntaxError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}") from error


# -- durable files ---------------------------------------------------------------------------


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


# -- JSON with a format number ---------------------------------------------------------------


def write_versioned(
    path: Path, version: int, values: Mapping[str, Any], indent: int | None = None
) -> Fingerprint:
    """A new JSON file, synced: `values` behind the number of their format."""
    with durable_file(path) as file:
        file.write(json.dumps({"format": version, **values}, indent=indent).encode())
        return file.fingerprint


def read_versioned(path: Path, version: int) -> dict[str, Any]:
    """What `write_versioned` wrote, with "format".

    Raises:
        CheckpointError: It can't be read, or has another format.
    """
    with unreadable(path):
        values = json.loads(path.read_bytes())
        found = values["format"]
        if found == version:
            return dict(values)
    raise CheckpointError(
        f"{path} has format {found!r}; this version reads {version}: restore it with the version "
        "of rllib-per that saved it"
    )


# -- arrays ----------------------------------------------------------------------------------


def write_array(path: Path, array: Array) -> Fingerprint:
    """A new .npy file, synced.

    Raises:
        TypeError: The array holds Python objects.
    """
    if array.dtype.hasobject:
        raise TypeError(f"a checkpoint holds numbers: {path.name} would hold {array.dtype}")
    array = np.ascontiguousarray(array)
    header = {
        "descr": npy.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    with durable_file(path) as file:
        npy.write_array_header_2_0(file, header)
        if array.nbytes:
            file.write(array.reshape(-1).view(np.uint8).data)
        return file.fingerprint


def read_array(path: Path, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()) -> Array:
    """The array in a .npy file: any number of rows of the given dtype and shape.

    Raises:
        CheckpointError: It is of another dtype or shape, or not as long as it says.
    """
    expected = np.dtype(dtype)
    with unreadable(path), path.open("rb") as file:
        shape, fortran_order, found = _read_header(file)
        num_bytes = os.fstat(file.fileno()).st_size - file.tell()
        fits = found == expected and shape[1:] == row_shape and not fortran_order
        if not fits or expected.hasobject or len(shape) != 1 + len(row_shape):
            raise ValueError(
                f"rows of {expected} {row_shape} are required: it holds {found} {shape}"
            )
        count = int(np.prod(shape, dtype=object))  # In Python's integers nothing overflows.
        if count * expected.itemsize != num_bytes:
            raise ValueError(f"{shape} of {found} do not fill its {num_bytes} bytes")
        return np.fromfile(file, expected, count).reshape(shape)


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the .npy format is not read here")
