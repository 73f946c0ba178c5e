# SPDX-License-Identifier: MIT
"""The gradient step of dueling double DQN: network, optimizer, target network, learners."""
