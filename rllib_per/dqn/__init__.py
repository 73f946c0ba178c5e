# SPDX-License-Identifier: MIT
"""ApexDQN: the algorithm, its configuration, and the loops that drive it."""

# A configuration builds an algorithm, which the module of the configuration does not know: whoever
# imports it has this one, too.
from rllib_per.dqn import algorithm as algorithm
