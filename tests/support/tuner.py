# SPDX-License-Identifier: MIT
"""A Tune trial that fails once and is restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune


def fail_and_restore(trainable: Any, config: Any, folder: Path, iterations: int) -> tune.Result:
    """Run a trial of `config`, which must fail, with a checkpoint per iteration; go on to its end.

    Returns:
        What it came to, without an error.
    """
    tuner = tune.Tuner(
        trainable,
        param_space=config,
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(folder),
            stop={"training_iteration": iterations},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    )
    assert tuner.fit().num_errors == 1
    restored = tune.Tuner.restore(str(folder / "run"), trainable, resume_errored=True)
    result = restored.fit()[0]
    assert result.error is None
    assert result.metrics["training_iteration"] == iterations
    return result
