# SPDX-License-Identifier: MIT
"""Gymnasium's SyncVectorEnv, less the parts of a step that the columnar runner has no use for."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rllib_per.runners.env_answers import EnvAnswers


class ColumnSyncVectorEnv(SyncVectorEnv):
    """Steps its environments one after another, with Box observations and discrete actions.

    As SyncVectorEnv does in next-step autoreset, but the arrays that `step` returns are its own and
    overwritten by the next step, and infos, which no column holds, are not merged. What it takes
    for an observation, a reward and a flag is `EnvAnswers`'s to say.
    """

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._answers = [EnvAnswers(env, i) for i, env in enumerate(self.envs)]
        space = self.single_observation_space
        self._declared = (np.ndarray, np.dtype(space.dtype), space.shape)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode everywhere; environment i gets `seed` + i, or `seed[i]`."""
        seeds: Any = [None] * self.num_envs if seed is None else seed
        if np.ndim(seeds) == 0:
            seeds = [seeds + i for i in range(self.num_envs)]
        observations: Any = self._observations
        for i, (env, own_seed) in enumerate(zip(self.envs, seeds, strict=True)):
            # Environments take a Python int and nothing like it.
            own_seed = None if own_seed is None else int(own_seed)
            observations[i] = self._reset(i, env, seed=own_seed, options=options)
        for flags in (self._terminations, self._truncations, self._autoreset_envs):
            flags[:] = False
        return observations, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of every environment, or its reset where its episode ended the step before."""
        observations: Any = self._observations
        rewards = self._rewards
        terminated, truncated = self._terminations, self._truncations
        resets = self._autoreset_envs.tolist()
        # What is right at a glance is written as it is; `EnvAnswers` decides on the rest.
        array, dtype, shape = self._declared
        for i, env in enumerate(self.envs):
            if resets[i]:
                observations[i] = self._reset(i, env)
                rewards[i], terminated[i], truncated[i] = 0.0, False, False
                continue
            try:
                obs, reward, is_terminated, is_truncated, _ = env.step(actions[i])
            except Exception as error:
                self._answers[i].raise_failed_step(error)
            if type(obs) is not array or obs.dtype is not dtype or obs.shape != shape:
                obs = self._answers[i].observation(obs)
            if type(reward) is not float:
                reward = self._answers[i].reward(reward)
            observations[i], rewards[i] = obs, reward
            # Both are False here: a reset comes between an episode's end and its next step.
            if is_terminated is not False:
                terminated[i] = self._answers[i].flag(is_terminated, "terminated")
            if is_truncated is not False:
                truncated[i] = self._answers[i].flag(is_truncated, "truncated")
        np.logical_or(terminated, truncated, out=self._autoreset_envs)
        return observations, rewards, terminated, truncated, {}

    def _reset(self, i: int, env: Any, **options: Any) -> Any:
        try:
            answer = env.reset(**options)
        except Exception as error:
            self._answers[i].say_where(error, "reset")
            raise
        return self._answers[i].first_observation(answer)
