# SPDX-License-Identifier: MIT
"""Gymnasium's SyncVectorEnv, less the parts of a step that the columnar runner has no use for."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class ColumnSyncVectorEnv(SyncVectorEnv):
    """Steps its environments one after another, with Box observations and discrete actions.

    As SyncVectorEnv does in next-step autoreset, but the arrays that `step` returns are its own and
    overwritten by the next step, and infos, which no column holds, are not merged.
    """

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of every environment, or its reset where its episode ended the step before."""
        observations: Any = self._observations
        rewards = self._rewards
        terminated, truncated = self._terminations, self._truncations
        resets = self._autoreset_envs.tolist()
        for i, env in enumerate(self.envs):
            if resets[i]:
                observations[i], _ = env.reset()
                rewards[i], terminated[i], truncated[i] = 0.0, False, False
            else:
                step = env.step(actions[i])
                observations[i], rewards[i], terminated[i], truncated[i], _ = step
        np.logical_or(terminated, truncated, out=self._autoreset_envs)
        return observations, rewards, terminated, truncated, {}
