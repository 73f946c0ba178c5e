# SPDX-License-Identifier: MIT
"""Vector environments whose observations have a mask of the legal actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from rllib_per.action_masks import (
    ACTION_MASK,
    OBSERVATIONS,
    GivenMask,
    fitted_mask,
    has_mask,
    is_of_zeros_and_ones,
    masked_space,
)
from rllib_per.arrays import Array, Bools
from rllib_per.observations import WrongDataError, describe
from rllib_per.runners.vector_env import one_of


def find_source(
    env: gym.vector.VectorEnv[Any, Any, Any],
    asked: str,
    first_infos: Callable[[], Mapping[str, Any]],
) -> str:
    """Where the masks of `env` are: "observation", "info", or "none".

    Args:
        env: As it was made.
        asked: `EnvRunners.action_masks`.
        first_infos: Resets the environment; called where nothing else decides.

    Raises:
        ValueError: They are not where they were said to be.
    """
    observations, actions = env.single_observation_space, env.single_action_space
    is_leaf = has_mask(observations, actions, asked)
    if asked == "observation" and not is_leaf:
        raise ValueError(
            f"action_masks='observation' needs Dict observations with a leaf {ACTION_MASK!r}: got "
            f"{observations}. Leave it at 'auto', or set it to 'info' or 'none'"
        )
    if asked == "info" and is_leaf:
        raise ValueError(
            f"action_masks='info' needs observations without a leaf {ACTION_MASK!r} of their own: "
            f"got {observations}. Leave it at 'auto', which takes the leaf"
        )
    if is_leaf:
        return "observation"
    if asked == "auto":
        if ACTION_MASK in first_infos():
            return "info"
        _refuse_hidden_mask(env)
        return "none"
    return asked


def _refuse_hidden_mask(env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    """Raises ValueError where a wrapper of Gymnasium's makes something else of a leaf of masks."""
    with one_of(env) as single:
        while isinstance(single, gym.Wrapper):
            outer, single = single, single.env
            is_theirs = type(outer).__module__.startswith("gymnasium.wrappers.")
            if is_theirs and _has_leaf(single) and not _has_leaf(outer):
                raise ValueError(
                    f"the leaf {ACTION_MASK!r} must reach the agent, or illegal actions are taken: "
                    f"{type(outer).__name__} leaves none of {single.observation_space}. Give masks "
                    f"in infos[{ACTION_MASK!r}], or set action_masks='none' "
                    "(`env_runners.action_masks` in YAML) if it is no mask"
                )


def _has_leaf(env: Any) -> bool:
    """Whether an environment observes something of that name."""
    space = env.observation_space
    return isinstance(space, gym.spaces.Dict) and ACTION_MASK in space.spaces


def first_infos(env: gym.vector.VectorEnv[Any, Any, Any]) -> Mapping[str, Any]:
    """The infos of a reset, for `find_source`; none where it fails, which play will show."""
    try:
        return env.reset()[1]
    except Exception:
        return {}


def with_masks(
    env: gym.vector.VectorEnv[Any, Any, Any], source: str
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """The environment with the masks that `find_source` found."""
    return env if source == "none" else MaskedVectorEnv(env, source)


def refuse_late_mask(env: Any, infos: Mapping[str, Any]) -> None:
    """Raises WrongDataError where environments that had no masks give one in their infos."""
    if ACTION_MASK in infos:
        raise WrongDataError(
            f"infos[{ACTION_MASK!r}] must be there from the first reset on, or never: {env} gave "
            f"none at first, and now {describe(infos[ACTION_MASK])}. Give one with every "
            "observation, or set action_masks='none' (`env_runners.action_masks` in YAML) if it is "
            "no mask"
        )


class MaskedVectorEnv(gym.vector.VectorWrapper):
    """Checks the masks of an environment, and shows them as a leaf of its observations.

    What an environment observes and has its mask in infos becomes {"observations": what it
    observes, "action_mask": (N, A) int8}. Of infos nothing else is read. A state after a
    termination may have any mask or none.

    Args:
        env: With next-step autoreset.
        source: "info" or "observation".
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], source: str) -> None:
        super().__init__(env)
        self._is_in_infos = source == "info"
        space, actions = env.single_observation_space, env.single_action_space
        self._shape = (env.num_envs, int(actions.n))  # type: ignore[attr-defined]
        self._was_over = np.zeros(env.num_envs, np.bool_)
        if self._is_in_infos:
            space = masked_space(space, actions)
        else:
            mask = gym.spaces.MultiBinary(self._shape[1])
            space = gym.spaces.Dict({**space.spaces, ACTION_MASK: mask})  # type: ignore[attr-defined]
        self.single_observation_space = space
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def path_of(self, path: str) -> str:
        """Where a leaf of the environment inside stands in these observations."""
        if not self._is_in_infos:
            return path
        return f"{OBSERVATIONS}/{path}" if path else OBSERVATIONS

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, infos = self.env.reset(**kwargs)
        return self.after_reset(obs, infos), infos

    def after_reset(self, obs: Any, infos: dict[str, Any]) -> Any:
        """The observations of `reset`, where the environment inside was reset."""
        self._was_over[:] = False
        return self._with_mask(obs, infos, "reset", self._was_over)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, rewards, terminated, truncated, infos = self.env.step(actions)
        is_over = (terminated | truncated) & ~self._was_over
        self._was_over = is_over
        obs = self._with_mask(obs, infos, "step", terminated & is_over)
        return obs, rewards, terminated, truncated, infos

    def _with_mask(self, obs: Any, infos: dict[str, Any], method: str, is_terminal: Bools) -> Any:
        if self._is_in_infos:
            given, rest = self._rows(infos), {OBSERVATIONS: obs}
        else:
            given, rest = obs[ACTION_MASK], obs
        return {**rest, ACTION_MASK: self._checked(given, method, is_terminal)}

    def _checked(self, given: Any, method: str, is_terminal: Bools) -> Array:
        """(N, A) int8, with a legal action wherever there must be one."""
        try:
            array = np.asarray(given)
        except ValueError:  # Rows of different lengths.
            array = np.empty(0)
        is_right = array.shape == self._shape and is_of_zeros_and_ones(array)
        if is_right and (array.any(axis=1) | is_terminal).all():
            return array.astype(np.int8)
        rows = zip(given, is_terminal.tolist(), strict=True)
        return np.stack([self._row(i, row, method, ends) for i, (row, ends) in enumerate(rows)])

    def _row(self, i: int, value: Any, method: str, is_terminal: bool) -> Array:
        """The mask of environment `i`, of which something may be wrong."""
        try:
            return fitted_mask(value, self._shape[1], is_terminal=is_terminal)
        except ValueError as error:
            where = f"infos[{ACTION_MASK!r}]" if self._is_in_infos else f"The leaf {ACTION_MASK!r}"
            raise WrongDataError(
                f"{where} {error}, from {method}() of environment {i} of {self.env}"
            ) from error

    def _rows(self, infos: Mapping[str, Any]) -> Any:
        """What each environment gave as its mask, or None; infos are in Gymnasium's form."""
        given = infos.get(ACTION_MASK)
        if given is None:
            return [None] * self.num_envs
        if not isinstance(given, (list, np.ndarray)) or len(given) != self.num_envs:
            raise WrongDataError(
                f"infos[{ACTION_MASK!r}] must be an array of shape {self._shape}, one mask for "
                f"each environment: got {describe(given)} from {self.env}"
            )
        if isinstance(given, list) or given.dtype == np.object_:
            return [row.value if isinstance(row, GivenMask) else row for row in given]
        is_given = infos.get(f"_{ACTION_MASK}", np.True_)
        if np.all(is_given):
            return given
        return [row if there else None for row, there in zip(given, is_given, strict=True)]
