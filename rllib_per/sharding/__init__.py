# SPDX-License-Identifier: MIT
"""Prioritized replay in several shards, in this process or in Ray actors."""

from rllib_per.settings.replay import ShardLimits
from rllib_per.sharding.batches import BatchPart, BatchRequest, join
from rllib_per.sharding.mass_line import NothingToDrawError
from rllib_per.sharding.placement import ShardPlacement, place_shards
from rllib_per.sharding.shard import ReplayShard
from rllib_per.sharding.sharded_replay import ShardedReplay
from rllib_per.sharding.writer import FragmentWriter

__all__ = [
    "BatchPart",
    "BatchRequest",
    "FragmentWriter",
    "NothingToDrawError",
    "ReplayShard",
    "ShardLimits",
    "ShardPlacement",
    "ShardedReplay",
    "join",
    "place_shards",
]
