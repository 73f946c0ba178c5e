# SPDX-License-Identifier: MIT
"""The replay buffers that `replay_buffer_config` can name: made, checked and saved."""
