# SPDX-License-Identifier: MIT
"""Replay in shards that are actors: what `replay_buffer_config` says of them, and their making."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import ray
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.util.placement_group import get_current_placement_group

from rllib_per.buffers.build import buffer_settings
from rllib_per.replay import RowSpec
from rllib_per.replay.ids import SHARD_BITS
from rllib_per.sharding import (
    ReplayShard,
    ReplayShards,
    ShardLimits,
    ShardPlacement,
    place_shards,
)
from rllib_per.sharding.calls import Deadline, ShardHandle, wait_for_any

logger = logging.getLogger(__name__)

SHARDED = "sharded"
MAX_SHARDS = 1 << SHARD_BITS
PLACEMENTS = ("anywhere", "spread", "node")
RECOVERIES = ("empty", "checkpoint")

_LIMITS = tuple(field.name for field in fields(ShardLimits))

# Batches in flight, batches at the learners, fragments, and the rest of what is in the store.
_STORE_PARTS = 4

# What `replay_buffer_config` may hold beside the buffer's own options.
SHARD_DEFAULTS: dict[str, Any] = {
    "num_shards": 1,
    "shard_num_cpus": 1.0,
    "shard_memory_bytes": 0,
    "shard_placement": "anywhere",
    "shard_recovery": "empty",
    **{name: getattr(ShardLimits(), name) for name in _LIMITS},
}


def is_sharded(config: Any) -> bool:
    """Whether replay is in actors."""
    return bool(config.replay_buffer_config.get("type") == SHARDED)


def add_bundles(factory: PlacementGroupFactory, config: Any) -> PlacementGroupFactory:
    """`factory` with a bundle for each shard, behind all of RLlib's."""
    settings = _settings(config)
    needs = ShardPlacement(settings["shard_num_cpus"], settings["shard_memory_bytes"])
    bundles = needs.bundles(settings["num_shards"])
    return PlacementGroupFactory([*factory.bundles, *bundles], strategy=factory.strategy)


def occupy_bundles(config: Any) -> list[ShardHandle]:
    """Start the shards' actors, and wait until each has its place.

    They come before the learners, which go into any bundle that is large enough, and would take
    one of these. What the shards are to hold is not known yet.

    Raises:
        TimeoutError: There is no place for them.
    """
    settings, limits = _settings(config), limits_of(config)
    group = get_current_placement_group()
    first_bundle = -1
    if group is not None and group.bundle_count > settings["num_shards"]:
        first_bundle = group.bundle_count - settings["num_shards"]
    placement = _placement(settings, first_bundle)
    handles = place_shards(settings["num_shards"], None, placement=placement, limits=limits)
    try:
        _await_places(handles, settings, limits)
    except BaseException:
        for handle in handles:
            handle.close()
        raise
    return handles


def build_sharded_replay(
    config: Any, rows: RowSpec, handles: Sequence[ShardHandle]
) -> ReplayShards:
    """One buffer out of shards that were placed before."""
    settings = buffer_settings(config, rows)
    return ReplayShards(
        handles,
        weight_normalization=settings.get("weight_normalization", "batch"),
        stratified=settings.get("stratified", True),
        seed=config.seed,
        limits=within_object_store(limits_of(config)),
        settings=settings,
    )


def within_object_store(limits: ShardLimits) -> ShardLimits:
    """`limits`, of which the bytes under way fit the smallest node's object store.

    Learners hold on to batches while others are under way, and so do fragments and weights: a part
    of the store is all that any of them may fill, or Ray writes objects to the disk.
    """
    stores = [node["Resources"].get("object_store_memory") for node in ray.nodes() if node["Alive"]]
    smallest = min((int(store) for store in stores if store), default=0)
    share = smallest // _STORE_PARTS
    if not share or limits.max_bytes_in_flight <= share:
        return limits
    logger.warning(
        "max_bytes_in_flight is %d, and the smallest object store has %d bytes: %d may be in "
        "flight, or Ray would write to the disk; give Ray a larger object_store_memory",
        limits.max_bytes_in_flight,
        smallest,
        share,
    )
    return replace(limits, max_bytes_in_flight=share)


def _settings(config: Any) -> dict[str, Any]:
    given = config.replay_buffer_config
    return {name: given.get(name, default) for name, default in SHARD_DEFAULTS.items()}


def limits_of(config: Any) -> ShardLimits:
    """The bounds that `config.replay_buffer_config` sets."""
    settings = _settings(config)
    return ShardLimits(**{name: settings[name] for name in _LIMITS})


def _placement(settings: dict[str, Any], first_bundle: int) -> ShardPlacement:
    on_node = settings["shard_placement"] == "node"
    return ShardPlacement(
        num_cpus=settings["shard_num_cpus"],
        memory_bytes=settings["shard_memory_bytes"],
        first_bundle=first_bundle,
        strategy=settings["shard_placement"],
        node_id=ray.get_runtime_context().get_node_id() if on_node else None,
    )


def _await_places(
    handles: Sequence[ShardHandle], settings: dict[str, Any], limits: ShardLimits
) -> None:
    deadline = Deadline(limits.shard_timeout_s)
    for shard, handle in enumerate(handles):
        if not wait_for_any([handle.call(ReplayShard.ping)], deadline.left_s):
            raise TimeoutError(
                f"waited {limits.shard_timeout_s:g} s for replay shard {shard} of {len(handles)} "
                f"to start; each needs {settings['shard_num_cpus']:g} CPUs beside those of the "
                "env runners: provide them, or lower shard_num_cpus or num_shards"
            )
