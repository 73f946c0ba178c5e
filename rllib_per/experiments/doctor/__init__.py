# SPDX-License-Identifier: MIT
"""`rllib-per doctor`: what an experiment needs of a machine or a cluster, checked in advance."""
