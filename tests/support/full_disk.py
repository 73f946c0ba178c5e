# SPDX-License-Identifier: MIT
"""A disk that is full: the system refuses larger files, with ENOSPC's sister EFBIG."""

import resource
import signal
from contextlib import contextmanager


@contextmanager
def files_of_at_most(num_bytes):
    """For no longer than the block: pytest's own output may go to a file that is larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
