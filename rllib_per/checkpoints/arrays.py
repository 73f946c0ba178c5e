# SPDX-License-Identifier: MIT
"""Arrays in .npy files, of a dtype and shape that the reader knows before: never pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from rllib_per.checkpoints.durable import Fingerprint, durable_file
from rllib_per.checkpoints.errors import CheckpointError

Array = npt.NDArray[Any]


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
    try:
        with path.open("rb") as file:
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
    except (OSError, ValueError, TypeError, SyntaxError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the .npy format is not read here")
