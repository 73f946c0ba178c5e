# SPDX-License-Identifier: MIT
"""RLlib's trees, driven as its `PrioritizedEpisodeReplayBuffer` drives them, one draw at a time."""

import random

import numpy as np
from ray.rllib.execution.segment_tree import MinSegmentTree, SumSegmentTree

NAME = "RLlib"


def make(masses):
    trees = SumSegmentTree(len(masses)), MinSegmentTree(len(masses))
    for tree, combine in zip(trees, (np.add, np.minimum), strict=True):
        levels = [np.asarray(masses)]
        while len(levels[-1]) > 1:
            levels.append(combine(levels[-1][::2], levels[-1][1::2]))
        tree.set_state([tree.neutral_element, *np.concatenate(levels[::-1]).tolist()])
    return trees


def sample(trees, batch_size, beta):
    sums, mins = trees
    total = sums.sum()
    max_weight = (mins.min() / total * sums.capacity) ** -beta
    indices, weights = [], []
    for _ in range(batch_size):
        index = sums.find_prefixsum_idx(random.random() * sums.sum())
        indices.append(index)
        weights.append((sums[index] / total * sums.capacity) ** -beta / max_weight)
    return np.array(indices), np.array(weights)


def update(trees, indices, masses):
    sums, mins = trees
    for index, mass in zip(indices.tolist(), masses.tolist(), strict=True):
        sums[index] = mass
        mins[index] = mass
