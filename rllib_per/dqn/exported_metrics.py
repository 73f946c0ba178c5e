# SPDX-License-Identifier: MIT
"""Replay's figures as Ray's own metrics, which every node offers to Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

PREFIX = "rllib_per_"

_COUNTED = "_lifetime"

# What each shard has of its own, and goes out tagged with its number. Over all shards these add up,
# or have a maximum, in the query.
OF_EACH_SHARD = frozenset(
    {
        "num_transitions",
        "capacity",
        "max_priority",
        "sample_age_mean_rows",
        "num_transitions_added_lifetime",
        "num_transitions_sampled_lifetime",
        "num_stale_updates_lifetime",
        "num_non_finite_updates_lifetime",
        "num_gaps_lifetime",
    }
)

Tags = dict[str, str]


class ExportedMetrics:
    """The figures of RLlib's results under their own names: `rllib_per_num_updates` and so on.

    Ray puts `ray_` before the name, and `_total` behind that of a counter; `num_..._lifetime` is a
    counter, anything else a gauge. A count that falls, since its shard began anew, goes on from
    what it was, as Prometheus expects of counters.

    Args:
        trial: Tells trials on one cluster apart.
    """

    def __init__(self, trial: str) -> None:
        self._trial = trial
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._counted: dict[tuple[str, str], float] = {}

    def export(
        self, figures: Mapping[str, float], shards: Mapping[int, Mapping[str, float]]
    ) -> None:
        """Hand figures over to Ray, which sends them by itself; costs microseconds each.

        Args:
            figures: Of the whole; those that shards have of their own are left to these.
            shards: Each shard's figures by its number.
        """
        for name, value in figures.items():
            if name not in OF_EACH_SHARD:
                self._set(name, float(value), {"trial": self._trial})
        for shard, own in shards.items():
            for name in OF_EACH_SHARD & own.keys():
                self._set(name, float(own[name]), {"trial": self._trial, "shard": str(shard)})

    def _set(self, name: str, value: float, tags: Tags) -> None:
        if name.endswith(_COUNTED):
            self._count(name, value, tags)
            return
        if name not in self._gauges:
            self._gauges[name] = Gauge(PREFIX + name, _description(name), tuple(tags))
        self._gauges[name].set(value, tags)

    def _count(self, name: str, value: float, tags: Tags) -> None:
        short = name.removesuffix(_COUNTED)
        if name not in self._counters:
            self._counters[name] = Counter(PREFIX + short, _description(short), tuple(tags))
        key = (name, tags.get("shard", ""))
        before = self._counted.get(key, 0.0)
        self._counted[key] = value
        grown = value - before if value >= before else value
        if grown > 0:
            self._counters[name].inc(grown, tags)


def _description(name: str) -> str:
    return f"rllib-per: {name.replace('_', ' ')}"
