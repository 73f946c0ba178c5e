# SPDX-License-Identifier: MIT
"""Search for settings with Ray Tune: from one YAML file to the best experiment and its pictures."""
