# SPDX-License-Identifier: MIT
"""Checkpoints: files and folders that are whole or not there, and replay buffers in them."""
