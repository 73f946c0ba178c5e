# SPDX-License-Identifier: MIT
"""The classes that a configuration names, by a dotted path or by a file."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from rllib_per.experiments.import_path import enter_folder
from rllib_per.settings.rules import is_dotted_path

_CLASS_IN_FILE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


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
