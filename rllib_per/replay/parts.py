# SPDX-License-Identifier: MIT
"""A saved replay buffer: one part for each shard, and what is known above them.

    replay.json      how many parts, and what JSON can hold of the facade over them
    part-000/ ...    see `archive`
    manifest.json    lists replay.json and the parts' manifests

It is restored into as many parts, or dealt out anew among another number of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rllib_per.checkpoints.durable import durable_file
from rllib_per.checkpoints.errors import CheckpointError
from rllib_per.checkpoints.manifest import seal
from rllib_per.replay.archived import read_part
from rllib_per.replay.ids import SHARD_BITS
from rllib_per.replay.resharding import deal_out

INDEX = "replay.json"
FORMAT = 1


def part_folder(folder: Path, part: int) -> Path:
    """Where a part is."""
    return folder / f"part-{part:03d}"


def finish(folder: Path, num_parts: int, values: dict[str, Any]) -> None:
    """Say what is in `folder`, once all parts are written and sealed.

    Args:
        values: What else is to come back from `read_index`.
    """
    with durable_file(folder / INDEX) as file:
        index = {"format": FORMAT, "num_parts": num_parts, "values": values}
        file.write(json.dumps(index).encode())
    seal(folder)


def read_index(folder: Path) -> tuple[int, dict[str, Any]]:
    """How many parts there are, and the values given to `finish`.

    Raises:
        CheckpointError: It can't be read.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_bytes())
        if index["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {index['format']!r}; this version reads {FORMAT}"
            )
        num_parts, values = int(index["num_parts"]), dict(index["values"])
        if not 1 <= num_parts <= 1 << SHARD_BITS:
            raise ValueError(f"{num_parts} parts")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}") from error
    return num_parts, values


def read_state(folder: Path, part: int, capacities: Sequence[int]) -> dict[str, Any]:
    """The state for one of several buffers that together take over what was saved.

    Verify `folder` first. Columns are read when the state is loaded.

    Args:
        part: Which of them.
        capacities: Of all of them.
    Raises:
        CheckpointError: A file can't be read, or does not fit.
        ValueError: Together they have another capacity than what was saved.
    """
    num_parts, _ = read_index(folder)
    if num_parts == len(capacities):
        return read_part(part_folder(folder, part))
    states = [read_part(part_folder(folder, k)) for k in range(num_parts)]
    return deal_out(states, capacities)(part)
