# SPDX-License-Identifier: MIT
"""This project's tree, as the replay buffer uses it."""

import numpy as np

from cython_tree import SumTree, importance_weights

NAME = "cython_tree"
_rng = np.random.default_rng(0)


def make(masses):
    tree = SumTree(len(masses))
    tree.set(np.arange(len(masses)), masses)
    return tree


def sample(tree, batch_size, beta):
    indices, masses = tree.sample_with_values(batch_size, _rng)
    return indices, importance_weights(masses, tree.min, beta)


def update(tree, indices, masses):
    tree.set(indices, masses)
