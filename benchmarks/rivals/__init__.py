# SPDX-License-Identifier: MIT
"""One competitor's segment tree per file, each with the same three functions.

make(masses)                      a tree, ready to draw, of one mass per leaf
sample(tree, batch_size, beta)    (indices, importance weights), random numbers included
update(tree, indices, masses)     write masses, so that the next sample sees them

A rival whose package does not import here is reported as absent.
"""
