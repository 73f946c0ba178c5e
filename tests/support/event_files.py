# SPDX-License-Identifier: MIT
"""What is in TensorBoard's event files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def events_in(folder: Path) -> Iterator[Event]:
    """Every event of every file, the file of the least name first."""
    for path in sorted(folder.iterdir()):
        yield from events_of(path)


def events_of(path: Path) -> Iterator[Event]:
    """Every event of one file."""
    data = path.read_bytes()
    while data:  # A record: its length in 8 bytes and their checksum in 4, it, its checksum.
        (length,) = struct.unpack_from("<Q", data)
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
