# SPDX-License-Identifier: MIT
"""Ray Tune's search with Optuna, of a metric that a result may be without."""

from __future__ import annotations

from typing import Any

from ray.tune.search.optuna import OptunaSearch


class PatientOptunaSearch(OptunaSearch):  # type: ignore[misc]
    """Tune's own ends the search with a KeyError; learners say nothing before learning starts."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna, if there is something to tell."""
        if self.metric in result:
            super().on_trial_result(trial_id, result)
