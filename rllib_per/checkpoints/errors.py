# SPDX-License-Identifier: MIT
"""What is wrong with a checkpoint."""


class CheckpointError(RuntimeError):
    """A checkpoint that is not what its manifest says; the message names the file."""
