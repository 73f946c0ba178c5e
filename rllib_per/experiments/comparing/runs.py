# SPDX-License-Identifier: MIT
"""The runs of a comparison: checked before the first begins, and each made ready to train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rllib_per.experiments.comparing.comparison import Contestant
from rllib_per.experiments.environment_check import check_environment
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.progress import ProgressDisplay
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.run_lock import run_lock
from rllib_per.experiments.training import Training


def check_all(contestants: Sequence[Contestant]) -> None:
    """Let RLlib and the replay buffers check every configuration before the first run begins.

    Raises:
        ValueError: With everything that is wrong with the first that can't be run.
    """
    for contestant in contestants:
        check_environment(contestant.experiment)
        contestant.experiment.algorithm_config().validate()


@contextmanager
def prepared(
    experiment: ExperimentConfig, run: RunFolder, display: ProgressDisplay
) -> Iterator[Training]:
    """One run, to go on from its checkpoint if it has any; no other process trains it meanwhile.

    Raises:
        RuntimeError: Another process does, or no checkpoint is whole.
    """
    with run_lock(run.checkpoints):
        is_begun = any(run.checkpoints.glob("step-*"))
        yield Training(experiment, run, display, resume=is_begun)
