# SPDX-License-Identifier: MIT
"""torchrl's C++ trees in float64, driven as its `PrioritizedSampler` drives them."""

import numpy as np
import torch
from torchrl._torchrl import MinSegmentTreeFp64, SumSegmentTreeFp64

NAME = "torchrl"


def make(masses):
    trees = SumSegmentTreeFp64(len(masses)), MinSegmentTreeFp64(len(masses))
    update((*trees, len(masses)), np.arange(len(masses)), masses)
    return *trees, len(masses)


def sample(tree, batch_size, beta):
    sums, mins, capacity = tree
    total, smallest = sums.query(0, capacity), mins.query(0, capacity)
    indices = torch.as_tensor(
        sums.scan_lower_bound(np.random.uniform(0.0, total, size=batch_size))
    ).clamp_max_(capacity - 1)
    return indices, torch.pow(torch.as_tensor(sums[indices]) / smallest, -beta)


def update(tree, indices, masses):
    indices, masses = torch.as_tensor(indices), torch.as_tensor(masses)
    for each in tree[:2]:
        each[indices] = masses
