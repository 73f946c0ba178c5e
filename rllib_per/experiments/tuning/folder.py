# SPDX-License-Identifier: MIT
"""The folder of a search: what was asked, Tune's own files, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.tuning.plan import SearchPlan, load_plan


@dataclass(frozen=True)
class TuningFolder(RunFolder):
    """The files of one search, beside those that every run has."""

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Whether `path` is the folder of a search."""
        return cls(path).trials.is_dir()

    def plan(self, *, allow_custom_classes: bool = False) -> SearchPlan:
        """The search as it ran; raises ConfigError like `load_plan`."""
        return load_plan(self.config, allow_custom_classes=allow_custom_classes)

    @property
    def trials(self) -> Path:
        """Ray Tune's experiment: state, results and checkpoints of every trial."""
        return self.path / "trials"

    @property
    def best(self) -> Path:
        """The best trial's experiment, for `rllib-per train`."""
        return self.path / "best.yaml"

    @property
    def curves(self) -> Path:
        """Every trial's curve."""
        return self.path / "trials.png"

    @property
    def parameters(self) -> Path:
        """Every value searched for against the result."""
        return self.path / "parameters.png"
