# SPDX-License-Identifier: MIT
"""How the priorities of a run's replay buffer are spread, and what they do to its draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.aggregates import Floats
from rllib_per.checkpoints.archive_reader import part_folder, read_index, read_part
from rllib_per.experiments.checkpoints import newest_checkpoint
from rllib_per.experiments.run_folder import RunFolder

BUFFER = Path("algorithm/replay_buffer")
QUANTILES = (0.1, 0.5, 0.9, 0.99, 1.0)


def saved_priorities(run: Path) -> tuple[Floats, Floats] | None:
    """Priorities and masses of the transitions that the run's newest checkpoint can draw.

    None: its replay is uniform, or no buffer is saved.
    """
    if RunFolder(run).experiment().replay.type != "prioritized":
        return None
    folder = newest_checkpoint(run / "checkpoints") / BUFFER
    if not folder.exists():
        return None
    priorities, masses = (np.concatenate(column) for column in zip(*_parts(folder), strict=True))
    can_be_drawn = masses > 0
    return priorities[can_be_drawn], masses[can_be_drawn]


def _parts(folder: Path) -> Iterator[tuple[Floats, Floats]]:
    num_parts, _ = read_index(folder)
    for part in range(num_parts):
        state = read_part(part_folder(folder, part))
        yield state["priorities"], state["masses"]


def spread(priorities: Floats, masses: Floats) -> dict[str, Any]:
    """The shape of P(i) = m_i / Σ m_k over N transitions.

    quantiles: of the priorities, in units of reward where they are |δ|.
    draws_of_top_tenth: the chance that a draw is of the tenth with the greatest mass. Uniform: 0.1.
    effective_share: 1 / (N · Σ P²), which is 1 for uniform draws and 1 / N if one takes all.
    """
    shares = np.sort(masses)[::-1] / masses.sum()
    return {
        "quantiles": {f"{q:g}": float(np.quantile(priorities, q)) for q in QUANTILES},
        "draws_of_top_tenth": float(shares[: round(len(shares) / 10)].sum()),
        "effective_share": float(1 / (len(shares) * np.square(shares).sum())),
    }
