# SPDX-License-Identifier: MIT
"""The running means and variances of Gymnasium's NormalizeObservation and NormalizeReward.

They are found on any environment that has such a wrapper. The environments of a `SyncVectorEnv`
share them, so that one policy sees one normalization.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from gymnasium.wrappers.utils import update_mean_var_count_from_moments

from rllib_per.arrays import Array

# "observation0.mean", ".var" and ".count", and so on; of each kind, 0 is the innermost.
Statistics = dict[str, Array]

_KINDS = (
    ("observation", NormalizeObservation, "obs_rms"),
    ("reward", NormalizeReward, "return_rms"),
)
_MOMENTS = ("mean", "var", "count")


def share_statistics(env: Any) -> None:
    """Let all environments of a vector environment count into those of the first one."""
    first, *others = _single_envs(env) or [None]
    shared = {name: getattr(wrapper, attribute) for name, wrapper, attribute in _normalizers(first)}
    for other in others:
        for name, wrapper, attribute in _normalizers(other):
            if name in shared:
                setattr(wrapper, attribute, shared[name])


def statistics_of(env: Any) -> Statistics:
    """Those of a vector environment at this moment; none where there are none in reach."""
    return {
        f"{name}.{moment}": np.array(getattr(getattr(wrapper, attribute), moment))
        for single in _single_envs(env)[:1]
        for name, wrapper, attribute in _normalizers(single)
        for moment in _MOMENTS
    }


def load_statistics(env: Any, statistics: Mapping[str, Array]) -> None:
    """Let `env` go on from these; what it has not is passed over, and what is not given stays."""
    for single in _single_envs(env)[:1]:  # They share them.
        for name, wrapper, attribute in _normalizers(single):
            for moment in _MOMENTS:
                value = statistics.get(f"{name}.{moment}")
                if value is not None:
                    setattr(getattr(wrapper, attribute), moment, np.array(value))


def check_statistics(own: Statistics, given: Statistics) -> None:
    """Raise ValueError unless an environment whose own they are can go on from those given.

    One in evaluation has no statistics of rewards.
    """
    for key, value in own.items():
        found = given.get(key)
        is_like = found is not None and (found.shape, found.dtype.kind) == (value.shape, "f")
        if not (is_like and np.isfinite(given[key]).all()):
            raise ValueError(
                f"the statistics are not of this environment: {key} must be finite floats of "
                f"shape {value.shape}, got {found!r:.200}"
            )


def freeze_statistics(env: Any, statistics: Mapping[str, Array] | None = None) -> list[Any]:
    """Let steps of `env` change them no more.

    Args:
        env: A vector environment.
        statistics: What it is to normalize by; None: by those of this moment.
    Returns:
        The wrappers of which this is news, for `thaw_statistics`: others were frozen by their env.
    """
    load_statistics(env, statistics or {})
    wrappers = [wrapper for single in _single_envs(env) for _, wrapper, _ in _normalizers(single)]
    frozen = [wrapper for wrapper in wrappers if wrapper.update_running_mean]
    for wrapper in frozen:
        wrapper.update_running_mean = False
    return frozen


def thaw_statistics(frozen: Sequence[Any]) -> None:
    """Let steps change those again that `freeze_statistics` gave."""
    for wrapper in frozen:
        wrapper.update_running_mean = True


def share_of(statistics: Statistics, num_shares: int) -> Statistics:
    """The same means and variances, counted by one of so many.

    Who begins with all counts and counts on beside the others would have them pooled twice.
    """
    return {
        key: value / num_shares if key.endswith(".count") else value
        for key, value in statistics.items()
    }


def pooled(several: Sequence[Mapping[str, Array]]) -> Statistics:
    """As if all had been counted by one (Chan et al. 1979)."""
    together: Statistics = {}
    for statistics in several:
        for name in sorted({key.rpartition(".")[0] for key in statistics}):
            keys = [f"{name}.{moment}" for moment in _MOMENTS]
            more = [statistics[key] for key in keys]
            if keys[0] in together:
                before = [together[key] for key in keys]
                more = update_mean_var_count_from_moments(*before, *more)  # type: ignore[no-untyped-call]
            together |= zip(keys, map(np.array, more), strict=True)
    return together


def _single_envs(env: Any) -> list[Any]:
    inner = getattr(env, "unwrapped", None)  # A runner may have no environment.
    return list(inner.envs) if isinstance(inner, SyncVectorEnv) else []


def _normalizers(env: Any) -> Iterator[tuple[str, Any, str]]:
    """Name, wrapper and attribute of each, from inside out."""
    wrappers = []
    while isinstance(env, gym.Wrapper):
        wrappers.append(env)
        env = env.env
    for kind, wrapper_class, attribute in _KINDS:
        found = [each for each in reversed(wrappers) if isinstance(each, wrapper_class)]
        for number, wrapper in enumerate(found):
            yield f"{kind}{number}", wrapper, attribute
