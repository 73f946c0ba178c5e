# SPDX-License-Identifier: MIT
"""`ApexDQN` under its name in RLlib's registry, for `tune.Tuner("ApexDQN")`, without importing Ray.

RLlib resolves a name when Tune asks for it, so an entry in its registry is enough. Where RLlib has
not been imported yet, the entry is made the moment that its registry is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_REGISTRY = "ray.rllib.algorithms.registry"


def register() -> None:
    """Enter `ApexDQN`, now or as soon as RLlib's registry is imported; twice is once."""
    if _REGISTRY in sys.modules:
        _enter(sys.modules[_REGISTRY])
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _enter(registry: ModuleType) -> None:
    registry.ALGORITHMS["ApexDQN"] = _apex_dqn


def _apex_dqn() -> tuple[type, Any]:
    from rllib_per.dqn.algorithm import ApexDQN

    return ApexDQN, ApexDQN.get_default_config()


class _AfterImport(MetaPathFinder):
    """Waits for the import of RLlib's registry, and is gone after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _EnteringLoader(spec.loader)
        return spec


class _EnteringLoader(Loader):
    """The module's own loader, and our entry after it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _enter(module)
