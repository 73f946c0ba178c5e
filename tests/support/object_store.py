# SPDX-License-Identifier: MIT
"""What Ray did with its object store."""

import ray


def num_spilled_bytes() -> int:
    """What this Ray runtime has ever written to disk for want of memory."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    reply = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address))
    return int(reply.store_stats.spilled_bytes_total)
