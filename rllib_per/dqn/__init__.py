# SPDX-License-Identifier: MIT
"""ApexDQN: the algorithm, its configuration, and the loops that drive it."""
