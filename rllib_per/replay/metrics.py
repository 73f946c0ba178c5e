# SPDX-License-Identifier: MIT
"""What a replay buffer counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rllib_per.arrays import Float32s, Int64s
from rllib_per.replay.fragment import TransitionBatch


@dataclass
class ReplayCounts:
    """Counts since the beginning, and what is needed for the figures of the newest batch."""

    num_added: int = 0
    num_sampled: int = 0
    num_stale: int = 0
    _weights: Float32s | None = field(default=None, repr=False)
    _ids: Int64s | None = field(default=None, repr=False)

    def note_sample(self, batch: TransitionBatch) -> None:
        """Count a batch; its figures are worked out only when they are asked for."""
        self.num_sampled += len(batch)
        self._weights, self._ids = batch.importance_weights, batch.ids

    def metrics(self, next_id: int) -> dict[str, float]:
        """Figures by name; `next_id` is the id of the next row, from which ages count in rows."""
        figures = {
            "num_transitions_added_lifetime": float(self.num_added),
            "num_transitions_sampled_lifetime": float(self.num_sampled),
            "num_stale_updates_lifetime": float(self.num_stale),
            "replay_ratio": self.num_sampled / max(self.num_added, 1),
        }
        if self._weights is not None and self._ids is not None:
            figures |= weight_metrics(self._weights)
            figures["sample_age_mean_rows"] = float((next_id - self._ids).mean())
        return figures

    def state(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {name: n for name, n in asdict(self).items() if not name.startswith("_")}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave; there is no newest batch then."""
        self.num_added = int(state["num_added"])
        self.num_sampled = int(state["num_sampled"])
        self.num_stale = int(state["num_stale"])
        self._weights = self._ids = None


def weight_metrics(importance_weights: Float32s) -> dict[str, float]:
    """Metrics of the importance weights of a batch."""
    weights = importance_weights.astype(np.float64)
    return {
        "importance_weight_max": float(weights.max()),
        "importance_weight_mean": float(weights.mean()),
        # (Σw)² / Σw² (Kish), as a share of the batch.
        "effective_sample_share": float(weights.mean() ** 2 / (weights**2).mean()),
    }
