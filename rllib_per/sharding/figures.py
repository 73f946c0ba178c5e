# SPDX-License-Identifier: MIT
"""Figures of several shards as those of one buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# What adds up besides the counts, which end in _lifetime.
_SUMS = ("num_transitions", "capacity")
# A shard knows its own weights, before they are scaled over all shards.
_OF_ONE_SHARD = ("importance_weight_max", "importance_weight_mean", "effective_sample_share")


def together(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Counts are added, maxima are maxima, the rest is averaged over the shards that report it."""
    names = dict.fromkeys(name for report in reports for name in report)
    figures = {}
    for name in names:
        values = [report[name] for report in reports if name in report]
        if name in _OF_ONE_SHARD:
            continue
        if name in _SUMS or name.endswith("_lifetime"):
            figures[name] = float(sum(values))
        elif name == "max_priority":
            figures[name] = max(values)
        else:
            figures[name] = sum(values) / len(values)
    if "replay_ratio" in figures:
        sampled = figures["num_transitions_sampled_lifetime"]
        figures["replay_ratio"] = sampled / max(figures["num_transitions_added_lifetime"], 1.0)
    return figures
