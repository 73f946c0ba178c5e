# SPDX-License-Identifier: MIT
"""From environments to Fragments, under RLlib's EnvRunner contract."""
