# SPDX-License-Identifier: MIT
"""Actors that hang are ended before RLlib says goodbye to them, for it waits until they answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ray

logger = logging.getLogger(__name__)

# How long an actor may take to finish what it does when all is to end.
PATIENCE_S = 10.0


def end_silent(actors: Sequence[Any], what: str, patience_s: float = PATIENCE_S) -> int:
    """Kill those of `actors` that do not answer; how many they were."""
    pings = {actor.__ray_ready__.remote(): actor for actor in actors}
    if not pings:
        return 0
    _, silent = ray.wait(list(pings), num_returns=len(pings), timeout=patience_s, fetch_local=False)
    for ping in silent:
        ray.kill(pings[ping], no_restart=True)
    if silent:
        logger.warning("%d of %d %s hang and were ended", len(silent), len(pings), what)
    return len(silent)


def actors_of(algorithm: Any) -> list[tuple[list[Any], str]]:
    """What RLlib waits for when `algorithm` stops; of one that was not set up, what there is."""
    learners = getattr(getattr(algorithm, "learner_group", None), "_workers", None)
    found = [(list(learners or []), "learners")]
    for name in ("env_runner_group", "eval_env_runner_group"):
        group = getattr(algorithm, name, None)
        if group is not None:
            found.append((list(group._worker_manager.actors().values()), "env runners"))
    return found
