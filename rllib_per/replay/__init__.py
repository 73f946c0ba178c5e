# SPDX-License-Identifier: MIT
"""Prioritized replay, usable alone: numpy in, numpy out."""

from rllib_per.replay.buffer import PrioritizedReplayBuffer
from rllib_per.replay.divergence import TrainingDivergedError
from rllib_per.replay.fragment import (
    Fragment,
    FrameSpec,
    PriorityUpdate,
    RowSpec,
    TransitionBatch,
)
from rllib_per.replay.uniform import UniformReplayBuffer

__all__ = [
    "Fragment",
    "FrameSpec",
    "PrioritizedReplayBuffer",
    "PriorityUpdate",
    "RowSpec",
    "TrainingDivergedError",
    "TransitionBatch",
    "UniformReplayBuffer",
]
