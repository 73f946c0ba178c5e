# SPDX-License-Identifier: MIT
"""What environments answer to `step` and `reset`, checked before it is written down as data."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any, NoReturn, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.utils import passive_env_checker
from gymnasium.vector.utils import batch_space

from rllib_per.action_masks import mask_alone
from rllib_per.arrays import Array, Bools
from rllib_per.error_notes import note
from rllib_per.observations import WrongDataError, describe, fitted_leaf, fitted_leaves
from rllib_per.replay.leaves import Leaf, ObservationTree, from_leaves

logger = logging.getLogger(__name__)

# Of so many steps a vector environment's observations are compared with the space's bounds.
NUM_BOUNDED_STEPS = 16

_OLD_STEP = "not enough values to unpack (expected 5, got 4)"
_NO_TUPLE = "cannot unpack non-iterable"
_OLD_RESET = re.compile(r"reset\(\) got an unexpected keyword argument '(seed|options)'")
_RESET_TAKES = "reset() must take the keywords `seed` and `options`"
_NUMBERS = (float, int, np.floating, np.integer, np.bool_)


class EnvAnswers:
    """The rules for one environment among others.

    Those of Gymnasium's SyncVectorEnv, on which RLlib's env runner stands: see `fitted_leaf` for
    observations. A reward is one real number. Flags are True or False; as there, 1, 0 and None
    count as such. Values outside of a Box's bounds are no error.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        self._env, self._index = env, index
        self._tree = ObservationTree(env.observation_space)

    def first_leaves(self, answer: Any) -> list[Array]:
        """The leaves of the observation in what `reset` returned."""
        if not _is_pair(answer):
            raise WrongDataError(
                f"reset() must return two values, (observation, info): {self._who} returned "
                f"{describe(answer)}. Write the environment for Gymnasium's interface"
            )
        return self.leaves(answer[0], "reset")

    def leaves(self, value: Any, method: str = "step") -> list[Array]:
        """The observation's leaves as the space declares them, in its order."""
        try:
            if self._tree.single is not None:
                return [fitted_leaf(value, self._tree.single)]
            return fitted_leaves(value, self._tree)
        except ValueError as error:
            raise WrongDataError(
                f"An observation must be {_rule(self._tree)}, as the observation space "
                f"{self._tree.space} says: {method}() of {self._who} returned {error}. Return what "
                "the space says, or declare another space"
            ) from error

    def nested(self, leaves: list[Array]) -> Any:
        """The observation of these leaves."""
        return self._tree.nested(from_leaves(dict(zip(self._tree.paths, leaves, strict=True))))

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

        What is no five values cannot be unpacked.
        """
        if str(error) == _OLD_STEP:
            raise WrongDataError(
                "step() must return five values, (observation, reward, terminated, truncated, "
                f"info): {self._who} returned four, as OpenAI's Gym did with `done`. Return "
                "`terminated` and `truncated` in its place, or wrap the environment, as shimmy's "
                "GymV21CompatibilityV0 does"
            ) from error
        if _is_gymnasiums(error) or str(error).startswith(_NO_TUPLE):
            raise WrongDataError(f"step() of {self._who} failed: {error}") from error
        self._raise_noted(error, "step")

    def raise_failed_reset(self, error: Exception) -> NoReturn:
        """The same of `reset`."""
        if _is_old_reset(error):
            raise WrongDataError(
                f"{_RESET_TAKES}, and return two values, (observation, info): that of {self._who} "
                f"failed, {error}. Write the environment for Gymnasium's interface"
            ) from error
        if _is_gymnasiums(error):
            raise WrongDataError(
                "reset() must return two values, (observation, info), the observation as the "
                f"space {self._tree.space} says: that of {self._who} failed, {error}"
            ) from error
        self._raise_noted(error, "reset")

    def _raise_noted(self, error: Exception, method: str) -> NoReturn:
        """An error of the environment's own."""
        note(error, f"raised by {method}() of {self._who.removesuffix(',')}")
        raise error

    @property
    def _who(self) -> str:
        """By the user's class: those around it are Gymnasium's and ours."""
        return f"environment {self._index}, {type(self._env.unwrapped).__name__},"


class CheckedEnv(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose answers are checked in the process that it lives in.

    Of infos only a mask leaves that process, which `MaskedVectorEnv` checks.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self._answers = EnvAnswers(env, index)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        try:
            answer = self.env.reset(**kwargs)
        except Exception as error:
            self._answers.raise_failed_reset(error)
        answers = self._answers
        return answers.nested(answers.first_leaves(answer)), mask_alone(answer[1])

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        answers = self._answers
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            answers.raise_failed_step(error)
        return (
            answers.nested(answers.leaves(obs)),
            answers.reward(reward),
            answers.flag(terminated, "terminated"),
            answers.flag(truncated, "truncated"),
            mask_alone(info),
        )


class CheckedVectorEnv(gym.vector.VectorWrapper):
    """A vector environment of a user's own, whose answers are checked.

    Observations, rewards and flags must be NumPy arrays with one row per environment. For
    observations `fitted_leaf` has the rule, rewards are real numbers, flags bools. In the first
    steps, values outside of a Box's bounds are a warning.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self._tree = ObservationTree(env.single_observation_space)
        self._leading = (env.num_envs,)
        # Whoever steps this counts actions from 0.
        actions: Any = env.single_action_space
        self._first_action = int(actions.start)
        self.single_action_space = gym.spaces.Discrete(int(actions.n))
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._unbounded_steps = NUM_BOUNDED_STEPS

    @property
    def frame_stack(self) -> Any:
        """What the environment declares."""
        return getattr(self.env, "frame_stack", None)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        try:
            answer = self.env.reset(**kwargs)
        except TypeError as error:
            if not _is_old_reset(error):
                raise
            raise WrongDataError(
                f"{_RESET_TAKES}: that of the vector environment {self.env} failed, {error}"
            ) from error
        if not _is_pair(answer):
            self._refuse("reset() must return two values, (observations, infos)", "reset", answer)
        return self._observations(answer[0], "reset"), answer[1]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        answer: Any = self.env.step(actions + self._first_action if self._first_action else actions)
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

    def _observations(self, value: Any, method: str) -> Any:
        single = self._tree.single
        if single is None:
            return self._trees(value, method)
        rule = f"Observations must be a NumPy array of shape {self._leading + single.shape} and "
        rule += f"dtype {single.dtype}, as the space {single.space} of each environment says"
        if not isinstance(value, np.ndarray):
            self._refuse(rule, method, value)
        if (
            value.shape != self._leading + single.shape
            or value.dtype != single.dtype
            or single.categories is not None
        ):
            try:
                value = fitted_leaf(value, single, self._leading)
            except ValueError:
                self._refuse(rule, method, value)
        if self._unbounded_steps:
            self._unbounded_steps -= 1
            self._compare_with_bounds(single, value)
        return value

    def _trees(self, value: Any, method: str) -> Any:
        """Gymnasium's batch of a Dict or a Tuple: one of the arrays of all environments."""
        try:
            leaves = fitted_leaves(value, self._tree, self._leading)
        except ValueError as error:
            raise WrongDataError(
                f"Observations must be {_rule(self._tree)}, each for {self._leading[0]} "
                f"environments, as the space {self._tree.space} says: {method}() of the vector "
                f"environment {self.env} returned {error}. Convert it there"
            ) from error
        if self._unbounded_steps:
            self._unbounded_steps -= 1
            for leaf, array in zip(self._tree.leaves, leaves, strict=True):
                self._compare_with_bounds(leaf, array)
        return self._tree.nested(dict(zip(self._tree.paths, leaves, strict=True)))

    def _rewards(self, value: Any) -> Array:
        is_array = isinstance(value, np.ndarray) and value.shape == self._leading
        if not is_array or value.dtype.kind not in "biuf":
            rule = f"Rewards must be a NumPy array of real numbers, of shape {self._leading}"
            self._refuse(rule, "step", value)
        return value

    def _flags(self, value: Any, name: str) -> Bools:
        is_array = isinstance(value, np.ndarray) and value.shape == self._leading
        if not is_array or value.dtype != np.bool_:
            rule = f"{name} must be a NumPy array of bools, of shape {self._leading}"
            self._refuse(rule, "step", value)
        return value

    def _refuse(self, rule: str, method: str, value: Any) -> NoReturn:
        raise WrongDataError(
            f"{rule}: {method}() of the vector environment {self.env} returned {describe(value)}. "
            "Convert it there; gymnasium.wrappers.vector has wrappers for JAX and PyTorch"
        )

    def _compare_with_bounds(self, leaf: Leaf, obs: Array) -> None:
        if not isinstance(leaf.space, gym.spaces.Box):
            return
        outside = (obs < leaf.space.low) | (obs > leaf.space.high)
        if not outside.any():
            return
        self._unbounded_steps = 0
        at = tuple(np.argwhere(outside)[0])
        logger.warning(
            "environment %d of %s observes %s, outside of its space %s; it is used as it is",
            at[0],
            self.env,
            obs[at],
            leaf.space,
        )


def _rule(tree: ObservationTree) -> str:
    if tree.single is not None:
        return f"an array of shape {tree.single.shape} and dtype {tree.single.dtype}"
    return f"arrays, the leaves {tree.paths}"


def _is_gymnasiums(error: Exception) -> bool:
    """Whether it is of the check that `gymnasium.make` adds, and none of the environment's own."""
    frames = traceback.extract_tb(error.__traceback__)
    is_assertion = isinstance(error, AssertionError) and bool(frames)
    return is_assertion and frames[-1].filename == passive_env_checker.__file__


def _is_old_reset(error: Exception) -> bool:
    """Whether `reset` takes no seed or no options, as with OpenAI's Gym."""
    return isinstance(error, TypeError) and _OLD_RESET.search(str(error)) is not None


def _is_pair(answer: Any) -> bool:
    """Whether `reset` returned an observation and infos."""
    is_pair = isinstance(answer, (tuple, list)) and len(answer) == 2
    return is_pair and isinstance(answer[1], dict)
