# SPDX-License-Identifier: MIT
"""Where replay shards live: in this process, or as actors with declared resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from rllib_per.replay import PrioritizedReplayBuffer
from rllib_per.replay.buffer import DRAWS
from rllib_per.settings.replay import MAX_SHARDS, Prioritized, Sharded, ShardLimits
from rllib_per.settings.rules import rules_of
from rllib_per.sharding.calls import LocalShard, RemoteShard, ShardHandle
from rllib_per.sharding.shard import ReplayShard

# Pings, starts and metrics, beside the calls that ShardLimits bounds.
_OTHER_CALLS = 16


@dataclass(frozen=True)
class ShardPlacement:
    """Resources of each replay shard's actor, and where it goes.

    Attributes:
        num_cpus: CPUs, the same as in `bundles`.
        memory_bytes: Memory to reserve; 0: none.
        first_bundle: Within a placement group, such as a Tune trial's: shard k belongs into bundle
            first_bundle + k. Without a placement group it means nothing.
        strategy: Without a placement group: "anywhere", "spread" over the nodes, or "node".
        node_id: For "node": which one, such as the learner's. If it is full, another will do.
    """

    num_cpus: float = Sharded.shard_num_cpus
    memory_bytes: int = Sharded.shard_memory_bytes
    first_bundle: int = -1
    strategy: str = Sharded.shard_placement
    node_id: str | None = None

    def __post_init__(self) -> None:
        rules_of(Sharded)["shard_placement"].check("strategy", self.strategy)
        if (self.strategy == "node") != (self.node_id is not None):
            raise ValueError("strategy 'node' needs a node_id, and no other takes one")

    def bundles(self, num_shards: int) -> list[dict[str, float]]:
        """What `default_resource_request` must ask for, so that a trial gets its shards placed."""
        bundle = {"CPU": self.num_cpus}
        if self.memory_bytes:
            bundle["memory"] = self.memory_bytes
        return [dict(bundle) for _ in range(num_shards)]

    def options(self, shard: int, limits: ShardLimits) -> dict[str, Any]:
        """Options of the shard's actor.

        A shard that dies comes back as a new process; a call that was under way fails at once, and
        its client knows whether it may be sent again.
        """
        pending = limits.max_calls_in_flight + limits.max_requests_in_flight + _OTHER_CALLS
        options = {
            "num_cpus": self.num_cpus,
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_pending_calls": pending,
            # In order, one call that is lost on its way holds up its successors for 30 s.
            "allow_out_of_order_execution": True,
            "scheduling_strategy": self._scheduling(shard),
        }
        return options | ({"memory": self.memory_bytes} if self.memory_bytes else {})

    def _scheduling(self, shard: int) -> Any:
        group = get_current_placement_group()
        if group is not None:
            bundle = self.first_bundle + shard if self.first_bundle >= 0 else -1
            return PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        if self.strategy == "node":
            return NodeAffinitySchedulingStrategy(self.node_id, soft=True)
        return "SPREAD" if self.strategy == "spread" else "DEFAULT"


def place_shards(
    num_shards: int,
    settings: Mapping[str, Any] | None,
    *,
    buffer_class: type[PrioritizedReplayBuffer] = PrioritizedReplayBuffer,
    placement: ShardPlacement | None = None,
    limits: ShardLimits | None = None,
) -> list[ShardHandle]:
    """K shards that share the capacity evenly; not started yet.

    Args:
        num_shards: K, 1 to 256.
        settings: Keyword arguments of the buffer, `capacity` that of all shards together; None:
            `ShardedReplay` will bring them, once they are known.
        buffer_class: What kind of buffer.
        placement: Makes them actors; None: objects in this process.
        limits: Bounds the calls that may wait for an actor.
    Raises:
        ValueError: K is out of range, or more than the capacity.
    """
    own_settings = None if settings is None else settings_of_shards(num_shards, settings)
    handles: list[ShardHandle] = []
    for shard in range(num_shards):
        own = None if own_settings is None else own_settings[shard]
        arguments = (shard, own, buffer_class)
        if placement is None:
            handles.append(LocalShard(ReplayShard(*arguments)))
        else:
            actor_class = ray.remote(**placement.options(shard, limits or ShardLimits()))
            handles.append(RemoteShard(actor_class(ReplayShard).remote(*arguments)))
    return handles


def settings_of_shards(num_shards: int, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each shard's settings: they share the capacity evenly.

    Raises:
        ValueError: K is out of range, or more than the capacity.
    """
    capacity = settings["capacity"]
    if not 1 <= num_shards <= min(MAX_SHARDS, capacity):
        raise ValueError(
            f"the number of replay shards must be from 1 to {MAX_SHARDS}, and at most the "
            f"capacity of {capacity}: got {num_shards}"
        )
    return [
        {**settings, "capacity": capacity // num_shards + (shard < capacity % num_shards)}
        for shard in range(num_shards)
    ]


def check_shardable(settings: Mapping[str, Any]) -> None:
    """Raises ValueError if buffers with these keyword arguments can't be drawn from as one."""
    prioritization = settings.get("prioritization", Prioritized.prioritization)
    draw = DRAWS.get(prioritization)
    if draw is not None and not draw.shardable:
        raise ValueError(
            f"prioritization={prioritization!r} can't be had with replay shards, as a rank is one "
            "among all transitions: use a single buffer (type 'prioritized'), or 'proportional'"
        )
