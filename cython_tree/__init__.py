# SPDX-License-Identifier: MIT
"""Segment trees for prioritized replay: arrays in, arrays out; knows numpy and nothing else."""

from cython_tree._tree import SumTree, importance_weights
from cython_tree.segment_tree import MinSegmentTree, SumSegmentTree

__all__ = ["MinSegmentTree", "SumSegmentTree", "SumTree", "importance_weights"]
