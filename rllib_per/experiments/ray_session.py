# SPDX-License-Identifier: MIT
"""A local Ray for as long as a command needs it, without dashboard and without chatter."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rllib_per.experiments.experiment import ExperimentConfig

# RLlib puts its config into the object store even when nothing is remote.
_LOCAL_STORE_BYTES = 100_000_000


@contextmanager
def ray_session(experiment: ExperimentConfig) -> Iterator[None]:
    """Ray with a CPU for every actor of the experiment; one that runs already is used and left."""
    quiet_logs()
    import ray

    if ray.is_initialized():
        yield
        return
    replay = experiment.replay
    shards = replay.num_shards * replay.shard_num_cpus if replay.type == "sharded" else 0
    actors = (
        experiment.env_runners.num_env_runners
        + experiment.learners.num_learners
        + math.ceil(shards)
    )
    ray.init(
        num_cpus=max(os.cpu_count() or 1, actors + 1),
        object_store_memory=None if actors else _LOCAL_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=actors > 0,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def quiet_logs() -> None:
    """Keep RLlib's notices to its own developers from users; errors still show."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::DeprecationWarning")  # Ray's own processes.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ray.rllib  # noqa: F401  (it sets levels of its own, so ours come after)

    for name in ("ray", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)
