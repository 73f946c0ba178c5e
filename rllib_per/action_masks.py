# SPDX-License-Identifier: MIT
"""Action masks: which actions are legal in a state, as one more leaf of the observation.

A mask stands at the top of a `Dict` of observations under the name `action_mask`, as RLlib's and
PettingZoo's environments have it. The network's input is the observation without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rllib_per.arrays import Array
from rllib_per.observations import describe

# Under this name in observations, and in the infos of Gymnasium's environments.
ACTION_MASK = "action_mask"
# What is observed stands under this name beside a mask that came in infos.
OBSERVATIONS = "observations"


# -- spaces ----------------------------------------------------------------------------------


def has_mask(observations: Any, actions: Any, source: str = "auto") -> bool:
    """Whether these spaces have a mask among the observations.

    Args:
        observations: Of a single environment, or of a module.
        actions: Likewise.
        source: `EnvRunners.action_masks`; with "none" a leaf of that name is an input like others.

    Raises:
        ValueError: The leaf of that name is no mask of these actions.
    """
    if source == "none" or not isinstance(observations, gym.spaces.Dict):
        return False
    if ACTION_MASK not in observations.spaces:
        return False
    leaf, num_actions = observations.spaces[ACTION_MASK], getattr(actions, "n", None)
    is_array = isinstance(leaf, (gym.spaces.Box, gym.spaces.MultiBinary))
    if not is_array or leaf.shape != (num_actions,):
        raise ValueError(
            f"The leaf {ACTION_MASK!r} of the observations must have one number for each action, "
            f"as MultiBinary({num_actions}) or a Box of shape ({num_actions},): got {leaf}. "
            "Declare it so, or set action_masks='none' (`env_runners.action_masks` in YAML) if it "
            "is no mask"
        )
    if len(observations.spaces) == 1:
        raise ValueError(
            f"Observations must have more than the leaf {ACTION_MASK!r}, which is no input of the "
            f"network: got {observations}"
        )
    return True


def masked_space(observations: gym.Space[Any], actions: Any) -> gym.spaces.Dict:
    """The space of observations beside their mask, where it came in infos."""
    mask = gym.spaces.MultiBinary(int(actions.n))
    return gym.spaces.Dict({OBSERVATIONS: observations, ACTION_MASK: mask})


def without_mask(observations: gym.spaces.Dict) -> gym.spaces.Dict:
    """The space of what is left for the network."""
    return gym.spaces.Dict({k: v for k, v in observations.spaces.items() if k != ACTION_MASK})


# -- values ----------------------------------------------------------------------------------


class GivenMask(NamedTuple):
    """What stood under `action_mask` in an environment's infos, as it came.

    Vector environments of Gymnasium put arrays beside each other and cast them; this they leave as
    it is.
    """

    value: Any


def mask_alone(info: Any) -> dict[str, GivenMask]:
    """Of one environment's infos only the mask, if it is there; it is looked at later."""
    if isinstance(info, dict) and ACTION_MASK in info:
        return {ACTION_MASK: GivenMask(info[ACTION_MASK])}
    return {}


def fitted_mask(value: Any, num_actions: int, *, is_terminal: bool) -> Array:
    """One state's mask (A,) of int8.

    Args:
        value: As it came; None: nothing did.
        num_actions: A.
        is_terminal: The episode terminated there. No action is taken in it and no value
            bootstrapped from it, so it may have any mask, or none.

    Raises:
        ValueError: It is no mask, or has no legal action; the message describes it.
    """
    if value is None and is_terminal:
        return np.zeros(num_actions, np.int8)
    try:
        array = np.asarray(value)
    except ValueError:  # A list of lists of different lengths.
        array = np.empty(0)
    if value is None or array.shape != (num_actions,):
        raise ValueError(
            f"{_rule(num_actions)}: got {'none' if value is None else describe(value)}"
        )
    if not is_of_zeros_and_ones(array):
        raise ValueError(f"{_rule(num_actions)}: got {describe(value)}, {array.tolist()}")
    if not is_terminal and not array.any():
        raise ValueError(
            "must have a legal action, unless the episode terminated: got none that is legal. End "
            "the episode in such a state"
        )
    return array.astype(np.int8)


def _rule(num_actions: int) -> str:
    return f"must be {num_actions} numbers, 1 for each legal action and 0 for each other"


def is_of_zeros_and_ones(array: Array) -> bool:
    """Whether it has nothing else."""
    if array.dtype == np.bool_:
        return True
    return array.dtype.kind in "iuf" and bool(((array == 0) | (array == 1)).all())


def split_mask(observations: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The observations without their mask, and the mask."""
    rest = {name: leaf for name, leaf in observations.items() if name != ACTION_MASK}
    return rest, observations[ACTION_MASK]


def join_mask(observations: Any, mask: Any) -> Any:
    """What `split_mask` has taken apart; as they are where there is no mask."""
    return observations if mask is None else {**observations, ACTION_MASK: mask}
