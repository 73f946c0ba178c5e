# SPDX-License-Identifier: MIT
"""From where modules are imported: never from the current folder, unless a user asks for that.

A folder that came from elsewhere may hold a `numpy.py`. Python has the current folder among its
`sys.path` after `python -m` and `python -c`, and Ray puts it first in every worker's.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import rllib_per
from rllib_per.settings.rules import is_dotted_path

_CLASS_IN_FILE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")

# Folders that a configuration's classes are imported from.
_entered: set[str] = set()


def leave_current_folder() -> None:
    """Import nothing from it; PYTHONPATH may name it, and so may a checkout of this package."""
    # An empty entry, as of `PYTHONPATH=$UNSET:/folder`, means the current folder to Python.
    named = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    own = Path(rllib_per.__file__).parents[1]
    if not any(_is_current(folder) for folder in (*named, str(own))):
        sys.path[:] = [folder for folder in sys.path if not _is_current(folder)]


def enter_current_folder() -> None:
    """Import from it what is found nowhere else."""
    if not any(map(_is_current, sys.path)):
        sys.path.append(os.getcwd())


def enter_folder(folder: Path) -> None:
    """Import from it what is found nowhere else, here and in Ray's workers of later sessions."""
    path = str(folder.resolve())
    _entered.add(path)
    if path not in sys.path:
        sys.path.append(path)


def worker_path() -> list[str]:
    """What Ray's workers need before their own `sys.path`, to import what this process can."""
    is_needed = any(path in _entered or _is_current(path) for path in sys.path)
    return list(map(os.path.abspath, sys.path)) if is_needed else []


# -- classes -----------------------------------------------------------------------------------


def names_class(name: str) -> bool:
    """Whether it looks like `package.module.Class` or `file.py:Class`."""
    return is_dotted_path(name) or _CLASS_IN_FILE.fullmatch(name) is not None


def class_file(name: str, folder: str | None) -> Path | None:
    """The file of `file.py:Class`, seen from `folder` or, where it is not there, from here."""
    found = _CLASS_IN_FILE.fullmatch(name)
    if found is None:
        return None
    path = Path(folder or "", found[1])
    return (path if path.is_file() else Path(found[1])).resolve()


def import_class(name: str, base: type | None = None, folder: str | None = None) -> Any:
    """The class that `package.module.Class` or `file.py:Class` names.

    Args:
        name: See above. A file is imported as the module that it is: so are those beside it.
        base: What it must be derived from.
        folder: From which a file's path begins.

    Raises:
        ValueError: There is none, or it is not derived from `base`.
    """
    file = class_file(name, folder)
    try:
        if file is None:
            module, _, attribute = name.rpartition(".")
            named = getattr(importlib.import_module(module), attribute)
        else:
            named = getattr(_import_file(file), name.rpartition(":")[2])
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name} cannot be imported: {error}; it must be installed, or stand beside the YAML "
            "file, in the current folder or in one that PYTHONPATH names"
        ) from error
    if base is not None and not (isinstance(named, type) and issubclass(named, base)):
        raise ValueError(f"{name} must be a class derived from {base.__name__}: got {named!r}")
    return named


def _import_file(file: Path) -> Any:
    """As the module of its name, so that Ray's workers find its classes by that."""
    if not file.is_file():
        raise ImportError(f"there is no file {file}")
    enter_folder(file.parent)
    module = importlib.import_module(file.stem)
    if Path(module.__file__ or "").resolve() != file:
        raise ImportError(
            f"Python has another module {file.stem}, of {module.__file__ or 'its own'}; give "
            f"{file} another name"
        )
    return module


def _is_current(folder: str) -> bool:
    return os.path.realpath(folder or os.curdir) == os.path.realpath(os.curdir)
