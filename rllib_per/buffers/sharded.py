# SPDX-License-Identifier: MIT
"""Replay in shards that are actors: their actors, placed and made into one buffer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import ray
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.util.placement_group import get_current_placement_group

from rllib_per.buffers.build import buffer_keywords
from rllib_per.replay import RowSpec
from rllib_per.seeds import REPLAY, stream_seed
from rllib_per.settings.replay import Sharded, ShardLimits, TransitionSettings
from rllib_per.sharding import (
    ReplayShard,
    ShardedReplay,
    ShardPlacement,
    place_shards,
)
from rllib_per.sharding.calls import Deadline, ShardHandle, wait_for_any

logger = logging.getLogger(__name__)

# Batches in flight, batches at the learners, fragments, and the rest of what is in the store.
_STORE_PARTS = 4


def add_bundles(factory: PlacementGroupFactory, settings: Sharded) -> PlacementGroupFactory:
    """`factory` with a bundle for each shard, behind all of RLlib's."""
    needs = ShardPlacement(settings.shard_num_cpus, settings.shard_memory_bytes)
    bundles = needs.bundles(settings.num_shards)
    return PlacementGroupFactory([*factory.bundles, *bundles], strategy=factory.strategy)


def occupy_bundles(settings: Sharded) -> list[ShardHandle]:
    """Start the shards' actors, and wait until each has its place.

    They come before the learners, which go into any bundle that is large enough, and would take
    one of these. What the shards are to hold is not known yet.

    Raises:
        TimeoutError: There is no place for them.
    """
    group = get_current_placement_group()
    first_bundle = -1
    if group is not None and group.bundle_count > settings.num_shards:
        first_bundle = group.bundle_count - settings.num_shards
    placement = _placement(settings, first_bundle)
    handles = place_shards(settings.num_shards, None, placement=placement, limits=settings)
    try:
        _await_places(handles, settings)
    except BaseException:
        for handle in handles:
            handle.close()
        raise
    return handles


def build_sharded_replay(
    settings: Sharded,
    transitions: TransitionSettings,
    rows: RowSpec,
    handles: Sequence[ShardHandle],
) -> ShardedReplay:
    """One buffer out of shards that were placed before."""
    return ShardedReplay(
        handles,
        weight_normalization=settings.weight_normalization,
        stratified=settings.stratified,
        seed=stream_seed(transitions.seed, REPLAY),
        limits=within_object_store(settings),
        settings=buffer_keywords(settings, transitions, rows),
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


def _placement(settings: Sharded, first_bundle: int) -> ShardPlacement:
    on_node = settings.shard_placement == "node"
    return ShardPlacement(
        num_cpus=settings.shard_num_cpus,
        memory_bytes=settings.shard_memory_bytes,
        first_bundle=first_bundle,
        strategy=settings.shard_placement,
        node_id=ray.get_runtime_context().get_node_id() if on_node else None,
    )


def _await_places(handles: Sequence[ShardHandle], settings: Sharded) -> None:
    deadline = Deadline(settings.shard_timeout_s)
    for shard, handle in enumerate(handles):
        if not wait_for_any([handle.call(ReplayShard.ping)], deadline.left_s):
            raise TimeoutError(
                f"waited {settings.shard_timeout_s:g} s for replay shard {shard} of {len(handles)} "
                f"to start; each needs {settings.shard_num_cpus:g} CPUs beside those of the "
                "env runners: provide them, or lower shard_num_cpus or num_shards"
            )
