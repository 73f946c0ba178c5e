# SPDX-License-Identifier: MIT
"""Segment trees for prioritized replay: arrays in, arrays out, no other dependency than numpy."""

from cython_tree._tree import SumTree, importance_weights

__all__ = ["SumTree", "importance_weights"]
