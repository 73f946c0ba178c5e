# SPDX-License-Identifier: MIT
"""Replay in shards that are actors: what `replay_buffer_config` says of them, and their making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import ray
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.util.placement_group import get_current_placement_group

from rllib_per.dqn.replay import buffer_settings
from rllib_per.replay import RowSpec
from rllib_per.replay.ids import SHARD_BITS
from rllib_per.sharding import ReplayShards, ShardLimits, ShardPlacement, place_shards
from rllib_per.sharding.handles import Deadline, ShardHandle, wait_for_any

SHARDED = "sharded"
MAX_SHARDS = 1 << SHARD_BITS
PLACEMENTS = ("anywhere", "spread", "node")

_LIMITS = tuple(field.name for field in fields(ShardLimits))

# What `replay_buffer_config` may hold beside the buffer's own options.
SHARD_DEFAULTS: dict[str, Any] = {
    "num_shards": 1,
    "shard_num_cpus": 1.0,
    "shard_memory_bytes": 0,
    "shard_placement": "anywhere",
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
    settings, limits = _settings(config), _limits(config)
    group = get_current_placement_group()
    first_bundle = -1
    if group is not None and group.bundle_count > settings["num_shards"]:
        first_bundle = group.bundle_count - settings["num_shards"]
    placement = _placement(settings, first_bundle)
    handles = place_shards(settings["num_shards"], None, placement=placement, limits=limits)
    _await_places(handles, settings, limits)
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
        limits=_limits(config),
        settings=settings,
    )


def _settings(config: Any) -> dict[str, Any]:
    given = config.replay_buffer_config
    return {name: given.get(name, default) for name, default in SHARD_DEFAULTS.items()}


def _limits(config: Any) -> ShardLimits:
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
        if not wait_for_any([handle.call("ping")], deadline.left_s):
            raise TimeoutError(
                f"waited {limits.shard_timeout_s:g} s for replay shard {shard} of {len(handles)} "
                f"to start; each needs {settings['shard_num_cpus']:g} CPUs beside those of the "
                "env runners: provide them, or lower shard_num_cpus or num_shards"
            )
