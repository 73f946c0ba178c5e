# SPDX-License-Identifier: MIT
"""The runs of a comparison, trained one after the other; what is finished is not run again."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from rllib_per.experiments.comparing.comparison import ComparisonFolder, Contestant
from rllib_per.experiments.environment_check import check_environment
from rllib_per.experiments.progress import ProgressDisplay
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


def train_all(
    folder: ComparisonFolder, contestants: Sequence[Contestant], console: Console
) -> bool:
    """Train every run that is not finished; False if Ctrl-C ended it, to be resumed.

    An interrupted run goes on from its checkpoint.
    """
    for number, contestant in enumerate(contestants, start=1):
        run = folder.run(contestant)
        if run.is_finished:
            continue
        title = f"{contestant.name} ({number} of {len(contestants)})"
        display = ProgressDisplay(console, contestant.experiment.stop, title)
        display.say(title)
        with run_lock(run.checkpoints):
            is_begun = any(run.checkpoints.glob("step-*"))
            training = Training(contestant.experiment, run, display, resume=is_begun)
            if training.run() == "interrupted":
                return False
    return True
