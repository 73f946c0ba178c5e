# SPDX-License-Identifier: MIT
"""Folders of files that are whole whenever they exist. Knows the standard library and numpy."""
