# SPDX-License-Identifier: MIT
"""One experiment with several replay buffers and seeds, side by side."""
