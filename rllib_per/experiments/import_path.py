# SPDX-License-Identifier: MIT
"""From where modules are imported: never from the current folder, unless a user asks for that.

A folder that came from elsewhere may hold a `numpy.py`. Python has the current folder among its
`sys.path` after `python -m` and `python -c`, and Ray puts it first in every worker's.
"""

from __future__ import annotations

import os
import sys

import rllib_per

# Folders that a configuration's classes are imported from.
_entered: set[str] = set()
# The current folder, as it was entered.
_current: str | None = None


def leave_current_folder() -> None:
    """Import nothing from it; PYTHONPATH may name it, and so may a checkout of this package."""
    # An empty entry, as of `PYTHONPATH=$UNSET:/folder`, means the current folder to Python.
    named = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    own = os.path.dirname(os.path.dirname(rllib_per.__file__))
    if not any(_is_current(folder) for folder in (*named, own)):
        sys.path[:] = [folder for folder in sys.path if not _is_current(folder)]


def enter_current_folder() -> None:
    """Import from it what is found nowhere else."""
    global _current
    if not any(map(_is_current, sys.path)):
        _current = os.getcwd()
        sys.path.append(_current)


def enter_folder(folder: os.PathLike[str]) -> None:
    """Import from it what is found nowhere else but in the current folder, which comes last.

    Ray's workers of later sessions do so too.
    """
    path = os.path.realpath(folder)
    _entered.add(path)
    if path not in sys.path:
        has_current = bool(sys.path) and sys.path[-1] == _current
        sys.path.insert(len(sys.path) - has_current, path)


def worker_path() -> list[str]:
    """What Ray's workers need before their own `sys.path`, to import what this process can."""
    is_needed = any(path in _entered or _is_current(path) for path in sys.path)
    # What is no folder, such as the hook of an editable install, means itself.
    absolute = [os.path.abspath(p) if not p or os.path.exists(p) else p for p in sys.path]
    return absolute if is_needed else []


def _is_current(folder: str) -> bool:
    return os.path.realpath(folder or os.curdir) == os.path.realpath(os.curdir)
