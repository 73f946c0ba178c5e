# SPDX-License-Identifier: MIT
"""The gradient step of dueling double DQN: network, loss, optimizer, learners."""
