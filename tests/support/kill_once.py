# SPDX-License-Identifier: MIT
"""A callback that kills one of its algorithm's learners."""

from __future__ import annotations

import os
from typing import Any

from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from ray.rllib.callbacks.callbacks import RLlibCallback

from tests.support.processes import kill, process_of

KILLED_AT = 3


class KillOnce(RLlibCallback):
    """Kills a learner after the third iteration, once in all lives of the trial.

    env_config's "marker" is a file that says how many updates there were.
    """

    def on_train_result(self, *, algorithm: Any, result: Any, **kwargs: Any) -> None:
        marker = algorithm.config.env_config["marker"]
        if algorithm.iteration == KILLED_AT and not os.path.exists(marker):
            with open(marker, "w") as file:
                file.write(str(algorithm.progress.updates))
            kill(process_of(algorithm.learner_group._workers[0]))


class CartPole(CartPoleEnv):
    """CartPole, whatever is in env_config."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
