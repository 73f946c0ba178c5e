# SPDX-License-Identifier: MIT
"""What environments answer to `step` and `reset`, checked before it is written down as data."""

from __future__ import annotations

import logging
from typing import Any, NoReturn, SupportsFloat

import gymnasium as gym
import numpy as np

from rllib_per.arrays import Array, Bools
from rllib_per.error_notes import note
from rllib_per.observations import WrongDataError, describe, fitted

logger = logging.getLogger(__name__)

# Of so many steps a vector environment's observations are compared with the space's bounds.
NUM_BOUNDED_STEPS = 16

_OLD_STEP = "not enough values to unpack (expected 5, got 4)"
_NO_TUPLE = "cannot unpack non-iterable"
_NUMBERS = (float, int, np.floating, np.integer, np.bool_)


class EnvAnswers:
    """The rules for one environment among others.

    Those of Gymnasium's SyncVectorEnv, on which RLlib's env runner stands: see `fitted` for
    observations. A reward is one real number. Flags are True or False; as there, 1, 0 and None
    count as such. Values outside of the space's bounds are no error.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        space = env.observation_space
        self._env, self._index, self._space = env, index, space
        self._shape: tuple[int, ...] = space.shape or ()
        self._dtype = np.dtype(space.dtype)

    def first_observation(self, answer: Any) -> Array:
        """The observation in what `reset` returned."""
        if not _is_pair(answer):
            raise WrongDataError(
                f"reset() must return two values, (observation, info): {self._who} returned "
                f"{describe(answer)}. Write the environment for Gymnasium's interface"
            )
        return self.observation(answer[0], "reset")

    def observation(self, value: Any, method: str = "step") -> Array:
        """The observation as the space declares it."""
        try:
            return fitted(value, self._shape, self._dtype)
        except ValueError as error:
            raise WrongDataError(
                f"An observation must be an array of shape {self._shape} and dtype {self._dtype}, "
                f"as the observation space {self._space} says: {method}() of {self._who} returned "
                f"{error}. Return what the space says, or declare another space"
            ) from error

    def reward(self, value: Any) -> float:
        """The reward as a number, which may be NaN or infinite."""
        try:
            if isinstance(value, _NUMBERS) or (
                np.ndim(value) == 0 and hasattr(value, "__float__") and not np.iscomplexobj(value)
            ):
                return float(value)
        except (TypeError, ValueError):
            pass  # As of a date that is none.
        raise WrongDataError(
            f"A reward must be one number: step() of {self._who} returned {describe(value)}. "
            "Return a float"
        )

    def flag(self, value: Any, name: str) -> bool:
        """`terminated` or `truncated` as a bool."""
        if isinstance(value, np.bool_) or value is None:
            return bool(value)
        if np.ndim(value) != 0 or value not in (0, 1):
            raise WrongDataError(
                f"`{name}` must be True or False: step() of {self._who} returned "
                f"{describe(value)}. Return a bool"
            )
        return bool(value)

    def raise_failed_step(self, error: Exception) -> NoReturn:
        """What is wrong with the environment where the error says so, or `error` itself.

        What is no five values cannot be unpacked, and Gymnasium's own check of an answer, the
        PassiveEnvChecker of `gymnasium.make`, asserts what it requires.
        """
        if str(error) == _OLD_STEP:
            raise WrongDataError(
                "step() must return five values, (observation, reward, terminated, truncated, "
                f"info): {self._who} returned four, as OpenAI's Gym did with `done`. Return "
                "`terminated` and `truncated` in its place, or wrap the environment, as shimmy's "
                "GymV21CompatibilityV0 does"
            ) from error
        if isinstance(error, AssertionError) or str(error).startswith(_NO_TUPLE):
            raise WrongDataError(f"step() of {self._who} failed: {error}") from error
        self.say_where(error, "step")
        raise error

    def say_where(self, error: Exception, method: str) -> None:
        """Note the environment beside an error of its own."""
        note(error, f"raised by {method}() of environment {self._index}, {self._env}")

    @property
    def _who(self) -> str:
        return f"environment {self._index}, {self._env},"


class CheckedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose answers are checked in the process that it lives in."""

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self._answers = EnvAnswers(env, index)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        try:
            answer = self.env.reset(**kwargs)
        except Exception as error:
            self._answers.say_where(error, "reset")
            raise
        return self._answers.first_observation(answer), answer[1]

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        answers = self._answers
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            answers.raise_failed_step(error)
        return (
            answers.observation(obs),
            answers.reward(reward),
            answers.flag(terminated, "terminated"),
            answers.flag(truncated, "truncated"),
            info,
        )


class CheckedVectorEnv(gym.vector.VectorWrapper):
    """A vector environment of a user's own, whose answers are checked.

    Observations, rewards and flags must be NumPy arrays with one row per environment. For
    observations `fitted` has the rule, rewards are real numbers, flags bools. In the first steps,
    values outside of the space's bounds are a warning.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        space: Any = env.single_observation_space
        self._space = space
        self._obs_shape = (env.num_envs, *space.shape)
        self._dtype = np.dtype(space.dtype)
        self._unbounded_steps = NUM_BOUNDED_STEPS

    @property
    def frame_stack(self) -> Any:
        """What the environment declares."""
        return getattr(self.env, "frame_stack", None)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        answer = self.env.reset(**kwargs)
        if not _is_pair(answer):
            self._refuse("reset() must return two values, (observations, infos)", "reset", answer)
        return self._observations(answer[0], "reset"), answer[1]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        answer: Any = self.env.step(actions)
        if not isinstance(answer, tuple) or len(answer) != 5:
            rule = "step() must return five values, (observations, rewards, terminations, "
            self._refuse(rule + "truncations, infos)", "step", answer)
        obs, rewards, terminated, truncated, infos = answer
        return (
            self._observations(obs, "step"),
            self._rewards(rewards),
            self._flags(terminated, "Terminations"),
            self._flags(truncated, "Truncations"),
            infos,
        )

    def _observations(self, value: Any, method: str) -> Array:
        rule = f"Observations must be a NumPy array of shape {self._obs_shape} and dtype "
        rule += f"{self._dtype}, as the space {self._space} of each environment says"
        if not isinstance(value, np.ndarray):
            self._refuse(rule, method, value)
        if value.shape != self._obs_shape or value.dtype != self._dtype:
            try:
                value = fitted(value, self._obs_shape, self._dtype)
            except ValueError:
                self._refuse(rule, method, value)
        if self._unbounded_steps:
            self._unbounded_steps -= 1
            self._compare_with_bounds(value)
        return value

    def _rewards(self, value: Any) -> Array:
        is_array = isinstance(value, np.ndarray) and value.shape == self._obs_shape[:1]
        if not is_array or value.dtype.kind not in "biuf":
            rule = f"Rewards must be a NumPy array of real numbers, of shape {self._obs_shape[:1]}"
            self._refuse(rule, "step", value)
        return value

    def _flags(self, value: Any, name: str) -> Bools:
        is_array = isinstance(value, np.ndarray) and value.shape == self._obs_shape[:1]
        if not is_array or value.dtype != np.bool_:
            rule = f"{name} must be a NumPy array of bools, of shape {self._obs_shape[:1]}"
            self._refuse(rule, "step", value)
        return value

    def _refuse(self, rule: str, method: str, value: Any) -> NoReturn:
        raise WrongDataError(
            f"{rule}: {method}() of the vector environment {self.env} returned {describe(value)}. "
            "Convert it there; gymnasium.wrappers.vector has wrappers for JAX and PyTorch"
        )

    def _compare_with_bounds(self, obs: Array) -> None:
        outside = (obs < self._space.low) | (obs > self._space.high)
        if not outside.any():
            return
        self._unbounded_steps = 0
        at = tuple(np.argwhere(outside)[0])
        logger.warning(
            "environment %d of %s observes %s, outside of its space %s; it is used as it is",
            at[0],
            self.env,
            obs[at],
            self._space,
        )


def _is_pair(answer: Any) -> bool:
    """Whether `reset` returned an observation and infos."""
    is_pair = isinstance(answer, (tuple, list)) and len(answer) == 2
    return is_pair and isinstance(answer[1], dict)
