# SPDX-License-Identifier: MIT
"""Experiments: one YAML file in, one run folder out."""
