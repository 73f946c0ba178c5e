# SPDX-License-Identifier: MIT
"""`ApexDQN` under its name in RLlib's registry, for `tune.Tuner("ApexDQN")`, without importing Ray.

RLlib resolves a name when Tune asks for it, so an entry in its registry is enough. Where RLlib has
not been imported yet, the entry is made the moment that its registry is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_REGISTRY = "ray.rllib.algorithms.registry"


def register() -> None:
    """Enter `ApexDQN`, now or as soon as RLlib's registry is imported; twice is once."""
    if not any(isinstance(finder, _BeforeOthers) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeOthers())
    if _REGISTRY in sys.modules:
        _enter(importlib.import_module(_REGISTRY))  # Waits where another thread imports it.


def _enter(registry: Any) -> None:
    registry.ALGORITHMS["ApexDQN"] = _apex_dqn


def _apex_dqn() -> tuple[type, Any]:
    from rllib_per.dqn.algorithm import ApexDQN

    return ApexDQN, ApexDQN.get_default_config()


class _BeforeOthers(MetaPathFinder):
    """Finds RLlib's registry as the finders after it do, with a loader that adds our entry.

    It stays: to find a module is not to import it, and an import may fail or be repeated.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        others = (f for f in sys.meta_path if f is not self and hasattr(f, "find_spec"))
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _EnteringLoader(spec.loader)
        return spec


class _EnteringLoader(Loader):
    """The module's own loader, and our entry after it; otherwise as that one is."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _enter(module)

    def __getattr__(self, name: str) -> Any:  # Its source, for tracebacks and inspection.
        if name == "_loader":
            raise AttributeError(name)  # Unpickling asks before there is one.
        return getattr(self._loader, name)
