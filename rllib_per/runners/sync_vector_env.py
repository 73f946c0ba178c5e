# SPDX-License-Identifier: MIT
"""Gymnasium's SyncVectorEnv, less the parts of a step that the columnar runner has no use for."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rllib_per.action_masks import ACTION_MASK, mask_alone
from rllib_per.arrays import Array
from rllib_per.replay.leaves import ObservationTree
from rllib_per.runners.env_answers import EnvAnswers


class ColumnSyncVectorEnv(SyncVectorEnv):
    """Steps its environments one after another, whose actions are discrete.

    As SyncVectorEnv does in next-step autoreset, but the arrays that `step` returns are its own and
    overwritten by the next step, and of infos only `action_mask` is handed on. What it takes
    for an observation, a reward and a flag is `EnvAnswers`'s to say.
    """

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._answers = [EnvAnswers(env, i) for i, env in enumerate(self.envs)]
        tree = ObservationTree(self.single_observation_space)
        leaf = tree.single
        # Of one array with any values; of all else `EnvAnswers` looks at every leaf.
        is_box = leaf is not None and leaf.categories is None
        self._declared = (leaf.dtype, leaf.shape) if leaf is not None and is_box else None
        self._columns = [leaf.of(self._observations) for leaf in tree.leaves]

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode everywhere; environment i gets `seed` + i, or `seed[i]`."""
        seeds: Any = [None] * self.num_envs if seed is None else seed
        if np.ndim(seeds) == 0:
            seeds = [seeds + i for i in range(self.num_envs)]
        infos: dict[str, Any] = {}
        for i, (env, own_seed) in enumerate(zip(self.envs, seeds, strict=True)):
            # Environments take a Python int and nothing like it.
            own_seed = None if own_seed is None else int(own_seed)
            self._reset(i, env, infos, seed=own_seed, options=options)
        for flags in (self._terminations, self._truncations, self._autoreset_envs):
            flags[:] = False
        return self._observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of every environment, or its reset where its episode ended the step before."""
        observations: Any = self._observations
        rewards = self._rewards
        terminated, truncated = self._terminations, self._truncations
        resets = self._autoreset_envs.tolist()
        infos: dict[str, Any] = {}
        # What is right at a glance is written as it is; `EnvAnswers` decides on the rest.
        array = np.ndarray
        dtype, shape = self._declared or (None, None)
        for i, env in enumerate(self.envs):
            if resets[i]:
                self._reset(i, env, infos)
                rewards[i], terminated[i], truncated[i] = 0.0, False, False
                continue
            try:
                obs, reward, is_terminated, is_truncated, info = env.step(actions[i])
            except Exception as error:
                self._answers[i].raise_failed_step(error)
            if info and isinstance(info, dict):
                self._note_mask(i, info, infos)
            if type(obs) is array and obs.dtype is dtype and obs.shape == shape:
                observations[i] = obs
            else:
                self._write(i, self._answers[i].leaves(obs))
            if type(reward) is not float:
                reward = self._answers[i].reward(reward)
            rewards[i] = reward
            # Both are False here: a reset comes between an episode's end and its next step.
            if is_terminated is not False:
                terminated[i] = self._answers[i].flag(is_terminated, "terminated")
            if is_truncated is not False:
                truncated[i] = self._answers[i].flag(is_truncated, "truncated")
        np.logical_or(terminated, truncated, out=self._autoreset_envs)
        return observations, rewards, terminated, truncated, infos

    def _reset(self, i: int, env: Any, infos: dict[str, Any], **options: Any) -> None:
        try:
            answer = env.reset(**options)
        except Exception as error:
            self._answers[i].raise_failed_reset(error)
        self._write(i, self._answers[i].first_leaves(answer))
        self._note_mask(i, answer[1], infos)

    def _write(self, i: int, leaves: list[Array]) -> None:
        for column, leaf in zip(self._columns, leaves, strict=True):
            column[i] = leaf

    def _note_mask(self, i: int, info: Any, infos: dict[str, Any]) -> None:
        """Of the infos of all, only the masks are kept, each as it came."""
        given = mask_alone(info)
        if given:
            infos.setdefault(ACTION_MASK, [None] * self.num_envs)[i] = given[ACTION_MASK]
