# SPDX-License-Identifier: MIT
"""Whether a run can go on, tried on a copy of it that is thrown away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rllib_per.experiments.interruption import undone_by_signals
from rllib_per.experiments.run_folder import RunFolder

# One iteration more, and a short look at what is played; whatever decides the buffer's kind stays.
ONE_ITERATION = (
    "stop={env_steps: 1}",
    "reporting.min_sample_timesteps_per_iteration=500",
    "evaluation.interval_env_steps=null",
    "evaluation.video_interval_env_steps=null",
    "evaluation.final_num_episodes=2",
    "evaluation.num_envs=2",
)


@contextmanager
def rehearsal(run: RunFolder) -> Iterator[RunFolder]:
    """A copy of `run`, there within the block only; the run itself is not touched.

    The copy lies beside the run, so that its checkpoints need no room: their files never change,
    and hard links to them will do.
    """
    path = run.path.resolve()
    with (
        tempfile.TemporaryDirectory(prefix=f".{path.name}-smoke-", dir=path.parent) as folder,
        undone_by_signals(lambda: shutil.rmtree(folder, ignore_errors=True)),
    ):
        copy = RunFolder(Path(folder, path.name))
        shutil.copytree(path, copy.path, ignore=_ignore(path, {"checkpoints", "videos"}))
        checkpoints = run.checkpoints.resolve()
        if checkpoints.is_dir():
            lock = _ignore(checkpoints, {".lock"})
            shutil.copytree(checkpoints, copy.checkpoints, ignore=lock, copy_function=_link)
        yield copy


def _ignore(top: Path, names: set[str]) -> Callable[[str, list[str]], set[str]]:
    """For `copytree`: leave out `names`, in the topmost folder only."""
    return lambda folder, _: names if Path(folder) == top else set()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # A file system without links.
        shutil.copy2(source, target)
