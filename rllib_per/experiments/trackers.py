# SPDX-License-Identifier: MIT
"""A run's numbers in Weights & Biases or MLflow, beside its own files. Both are extras.

Where to and with which secrets is the environment's to say (WANDB_MODE, WANDB_API_KEY,
MLFLOW_TRACKING_URI), never the YAML's. A tracker that fails on the way stops nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from rllib_per.experiments.run_folder import RunFolder
from rllib_per.extras import how_to_install

PROJECT = "rllib-per"


class Tracker(Protocol):
    """Takes the settings when it is made, and numbers as they come."""

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        """The numbers of one iteration."""
        ...

    def end(self, *, is_good: bool) -> None:
        """No more will come."""
        ...


class WandbTracker:
    """Weights & Biases; its files are in the run's folder."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=PROJECT, name=run.path.name, dir=str(run.path), config=dict(settings)
            )
        except Exception as error:
            raise RuntimeError(
                f"wandb cannot begin a run: {error}; set WANDB_API_KEY, or WANDB_MODE=offline"
            ) from error

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        self._run.log(dict(numbers), step=env_steps)

    def end(self, *, is_good: bool) -> None:
        self._run.finish(exit_code=0 if is_good else 1)


class MlflowTracker:
    """MLflow; without MLFLOW_TRACKING_URI in `mlruns`, beside the run's folder."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]) -> None:
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (run.path.resolve().parent / "mlruns").as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        try:
            experiment = self._client.get_experiment_by_name(PROJECT)
            number = (
                self._client.create_experiment(PROJECT)
                if experiment is None
                else experiment.experiment_id
            )
            begun = self._client.create_run(number, run_name=run.path.name)
        except Exception as error:
            raise RuntimeError(
                f"MLflow cannot begin a run at {uri}: {error}; set MLFLOW_TRACKING_URI"
            ) from error
        self._run_id = begun.info.run_id
        for name, value in settings.items():
            self._client.log_param(self._run_id, name, str(value)[:500])

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, env_steps) for name, value in numbers.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def end(self, *, is_good: bool) -> None:
        self._client.set_terminated(self._run_id, "FINISHED" if is_good else "FAILED")


class Forgiving:
    """A tracker of which errors are told once, and stop nothing."""

    def __init__(self, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self._tracker, self._warn = tracker, warn
        self._is_told = False

    def log(self, numbers: Mapping[str, float], env_steps: int) -> None:
        self._attempt(lambda: self._tracker.log(numbers, env_steps))

    def end(self, *, is_good: bool) -> None:
        self._attempt(lambda: self._tracker.end(is_good=is_good))

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # Of a network, or whatever the library raises.
            if not self._is_told:
                self._warn(f"the tracker failed: {error}; training goes on, and tells of it once")
            self._is_told = True


TRACKERS: Mapping[str, type[WandbTracker] | type[MlflowTracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def check_installed(name: str) -> None:
    """Whether the tracker of that name can be made here, before anything is.

    Raises:
        RuntimeError: Its package is missing; the message says what to do.
    """
    if find_spec(name) is None:
        raise RuntimeError(f"--track {name} needs {name}: {how_to_install(name)}")


def make_tracker(
    name: str, run: RunFolder, settings: Mapping[str, Any], warn: Callable[[str], None]
) -> Tracker:
    """The tracker of that name, with a run begun there.

    Args:
        settings: Of the experiment, flat.
        warn: Is told of the first error on the way.
    Raises:
        RuntimeError: It is not installed, or cannot begin; the message says what to do.
    """
    try:
        tracker = TRACKERS[name](run, settings)
    except ImportError as error:
        raise RuntimeError(
            f"--track {name} needs more packages ({error}): {how_to_install(name)}"
        ) from error
    return Forgiving(tracker, warn)
