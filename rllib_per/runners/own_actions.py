# SPDX-License-Identifier: MIT
"""Actions by a module's own `_forward_exploration` or `_forward_inference`, as in RLlib."""

from __future__ import annotations

import logging
from typing import Any

import torch
from ray.rllib.core.columns import Columns

from rllib_per.action_masks import ACTION_MASK
from rllib_per.arrays import Bools, Int64s
from rllib_per.own_forwards import has_own_forward

logger = logging.getLogger(__name__)


class OwnActions:
    """Asks the module for actions, once per step of the vector environment.

    ε-greedy actions are chosen in NumPy from Q-values, and random ones without a pass through the
    network; a module's own pass is called for every step, with what RLlib's env runner gives it.

    Args:
        module: The module that acts.
        num_actions: Of the Discrete action space.
        explore: By `_forward_exploration`, else by `_forward_inference`.
        env_step: Env steps of all runners so far, for the module's schedules.
        num_runners: How many runners step at the same time.
    """

    def __init__(
        self, module: Any, num_actions: int, *, explore: bool, env_step: int, num_runners: int
    ) -> None:
        self._module, self._num_actions = module, num_actions
        self._explore, self._env_step, self._num_runners = explore, env_step, num_runners

    def choose(self, obs: Any, num_envs: int) -> Int64s:
        """(N,) actions in N observations on the module's device, as its space has them.

        Raises:
            ValueError: The module gives no actions, or wrong ones.
        """
        batch = {Columns.OBS: obs}
        if self._explore:
            output = self._module.forward_exploration(batch, t=self._env_step)
        else:
            output = self._module.forward_inference(batch)
        self._env_step += num_envs * self._num_runners
        actions = self._actions(output)
        if actions.shape != (num_envs,) or actions.is_floating_point():
            raise ValueError(
                f"{self._name} must give one integer per environment, ({num_envs},), as 'actions': "
                f"got {tuple(actions.shape)} of {actions.dtype}"
            )
        chosen: Int64s = actions.cpu().numpy().astype("int64", copy=False)
        if chosen.min() < 0 or chosen.max() >= self._num_actions:
            raise ValueError(
                f"{self._name} must give actions from 0 to {self._num_actions - 1}: got "
                f"{chosen.tolist()}"
            )
        return chosen

    def require(self, allowed: Bools, actions: Int64s) -> None:
        """Raises ValueError where an action that the module gave is illegal."""
        if not allowed.all():
            i = int(allowed.argmin())
            raise ValueError(
                f"{self._name} must give legal actions: got {actions[i]} for environment {i}, "
                f"which its `{ACTION_MASK}` forbids; choose among those that the mask in "
                "batch['obs'] allows"
            )

    def _actions(self, output: Any) -> torch.Tensor:
        if Columns.ACTIONS_FOR_ENV in output:
            raise ValueError(
                f"{self._name} gives 'actions_for_env', and the actions in replay would be others: "
                "give 'actions', or set env_runner_cls=SingleAgentEnvRunner"
            )
        if Columns.ACTIONS in output:
            return torch.as_tensor(output[Columns.ACTIONS])
        if Columns.ACTION_DIST_INPUTS not in output:
            raise ValueError(
                f"{self._name} must give 'actions' or 'action_dist_inputs': got {sorted(output)}"
            )
        if self._explore:
            kind = self._module.get_exploration_action_dist_cls()
        else:
            kind = self._module.get_inference_action_dist_cls()
        distribution = kind.from_logits(output[Columns.ACTION_DIST_INPUTS])
        if not self._explore:
            distribution = distribution.to_deterministic()
        return torch.as_tensor(distribution.sample())

    @property
    def _name(self) -> str:
        name = "_forward_exploration" if self._explore else "_forward_inference"
        return f"{type(self._module).__name__}.{name}"


def warn_of_own_forwards(module: Any) -> None:
    """One line, where a module chooses actions by itself."""
    own = [n for n in ("exploration", "inference") if has_own_forward(type(module), n)]
    if own:
        logger.warning(
            "%s chooses actions by its own %s, called for every step of the environments. This is "
            "the slower path: with ε-greedy in PyTorch, 8 CartPoles take twice as long. `epsilon` "
            "has the effect that the module gives it",
            type(module).__name__,
            " and ".join(f"_forward_{name}" for name in own),
        )
