# SPDX-License-Identifier: MIT
"""tianshou's numba tree, driven as its `PrioritizedReplayBuffer` drives it: a running minimum."""

import numpy as np
from tianshou.data.utils.segtree import SegmentTree

NAME = "tianshou"


def make(masses):
    tree = SegmentTree(len(masses))
    tree[np.arange(len(masses))] = masses
    return tree, float(masses.min())


def sample(tree, batch_size, beta):
    sums, smallest = tree
    indices = sums.get_prefix_sum_idx(np.random.rand(batch_size) * sums.reduce())
    return indices, (sums[indices] / smallest) ** -beta


def update(tree, indices, masses):
    tree[0][indices] = masses
