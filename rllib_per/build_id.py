# SPDX-License-Identifier: MIT
"""Which build of the compiled extensions this is: nodes that work together must have the same."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

EXTENSIONS = ("cython_tree._tree", "rllib_per.replay._gather", "rllib_per.replay._ring")


def build_ids() -> dict[str, str | None]:
    """For each extension 12 digits of its file's SHA-256; None where it is not compiled.

    Two machines that compiled the same sources may differ: only the same wheel is the same.
    """
    return {name: _digest(name) for name in EXTENSIONS}


def _digest(name: str) -> str | None:
    try:
        spec = find_spec(name)
    except ImportError:  # Its package is not there.
        return None
    if spec is None or spec.origin is None:
        return None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:12]
