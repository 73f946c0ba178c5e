# SPDX-License-Identifier: MIT
"""Whether an allocation can fit, asked before it is made."""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
# What a container may use: cgroup version 2, then 1.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_bytes() -> int:
    """Bytes that this process can still get without swapping, as far as the system tells."""
    bounds = [_system_bytes()]
    for limit, usage in _CGROUPS:
        if limit.exists() and usage.exists() and (text := limit.read_text().strip()).isdigit():
            bounds.append(int(text) - int(usage.read_text()))
    return max(min(bounds), 0)


def _system_bytes() -> int:
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_bytes(capacity: int, bytes_per_row: int) -> None:
    """Refuse a capacity that the memory can't hold.

    Raises:
        MemoryError: With the bytes that it needs and the largest capacity that would fit.
    """
    needed, available = capacity * bytes_per_row, available_bytes()
    if needed > available:
        raise MemoryError(
            f"capacity={capacity} needs {needed} bytes ({needed / 2**30:.1f} GiB, {bytes_per_row} "
            f"per row) and {available} ({available / 2**30:.1f} GiB) are available; lower capacity "
            f"to at most {available // bytes_per_row}, or store smaller frames"
        )
