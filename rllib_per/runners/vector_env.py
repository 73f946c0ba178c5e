# SPDX-License-Identifier: MIT
"""From RLlib's `config.environment(...)` to a vectorised Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, VectorizeMode
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, NormalizeReward
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import ENV_CREATOR, _global_registry

import rllib_per.envs  # noqa: F401  (registers them)
from rllib_per.actions import num_actions
from rllib_per.arrays import Bools
from rllib_per.envs.atari import AtariGames
from rllib_per.envs.long_episodes import LongEpisodes
from rllib_per.envs.packages import register_package
from rllib_per.envs.statistics import share_statistics
from rllib_per.envs.wrappers import Layer, WrapperError, wrapped
from rllib_per.runners.env_answers import CheckedEnv, CheckedVectorEnv
from rllib_per.runners.env_creation import create_env
from rllib_per.runners.space_wrappers import ActionsFromZero, DropLeaves, with_newest_mask
from rllib_per.runners.sync_vector_env import ColumnSyncVectorEnv
from rllib_per.settings.algorithm import PlaySettings

# An attribute of Gymnasium's NormalizeObservation and NormalizeReward: whether they still count.
_OF_NORMALIZERS = "update_running_mean"

# Of an evaluation, where nothing else is known.
LONGEST_EPISODE_ENV_STEPS = 100_000


def env_context(play: PlaySettings, worker_index: int | None, num_workers: int) -> EnvContext:
    """`env_config`, with who makes the environment, as RLlib tells creators."""
    if isinstance(play.env_config, EnvContext):
        return play.env_config
    return EnvContext(
        play.env_config,
        worker_index=worker_index,
        num_workers=num_workers,
        remote=play.is_remote,
    )


def find_long_episodes(env: Any) -> LongEpisodes | None:
    """The `LongEpisodes` that `env` is, or wraps."""
    return env.unwrapped if isinstance(env.unwrapped, LongEpisodes) else None


def episodes_over(long_episodes: LongEpisodes | None, terminated: Bools, truncated: Bools) -> Bools:
    """Where an episode is over (N,) after an environment's last step.

    Only a `LongEpisodes` goes on where it is `terminated`. Infos are not asked: they belong to the
    environments, and what their keys mean is for these to say.
    """
    if long_episodes is None:
        return terminated | truncated
    return long_episodes.episodes_over.copy()


def reset_with_seeds(env: Any, seeds: Sequence[int]) -> Any:
    """The first observations (N, ...), each environment's of its own seed.

    Gymnasium's vector environments take a list of seeds. One of a user's own must take only a
    single one, the first of `seeds`, and make the others of it.
    """
    takes_list = isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv, AtariGames))
    numbers = [int(seed) for seed in seeds]
    return env.reset(seed=numbers if takes_list else numbers[0])[0]


def longest_episode(env: Any, max_env_steps: int | None = None) -> int:
    """Env steps after which an evaluation cuts an episode.

    Args:
        env: The vector environment.
        max_env_steps: What the user says; None is 108,000 frames of an Atari game (27,000 env
            steps), else the time limit with which the environment is registered, else 100,000.
    """
    return max_env_steps or time_limit(env) or LONGEST_EPISODE_ENV_STEPS


def time_limit(env: Any) -> int | None:
    """Env steps after which a vector environment's episodes end; None: none is known.

    An environment class may have one of its own, of which nothing is said.
    """
    inner = env.unwrapped
    if isinstance(inner, AtariGames):
        return inner.max_env_steps_per_episode
    spec = inner.envs[0].spec if isinstance(inner, SyncVectorEnv) else inner.spec
    limit = None if spec is None else spec.kwargs.get("max_episode_steps", spec.max_episode_steps)
    return limit if isinstance(limit, int) and limit > 0 else None


@contextmanager
def one_of(env: gym.vector.VectorEnv) -> Iterator[Any]:
    """One of its environments, closed afterwards if it was made for this; None: out of reach."""
    inner = env.unwrapped
    if isinstance(inner, SyncVectorEnv):
        yield inner.envs[0]
    elif isinstance(inner, AsyncVectorEnv):
        single: Any = inner.env_fns[0]()
        try:
            yield single
        finally:
            single.close()
    else:
        yield None


def make_vector_env(
    env: Any,
    context: EnvContext,
    *,
    num_envs: int,
    vectorize_mode: str | VectorizeMode,
    drop_leaves: Sequence[str] = (),
    around: Sequence[Layer] = (),
) -> gym.vector.VectorEnv:
    """`num_envs` environments, stepped together as `gym_env_vectorize_mode` says.

    Their actions are counted from 0, wherever the environment's own Discrete space starts.

    Args:
        env: As RLlib takes it: an id of Gymnasium, whose constructor gets `env_config`, or a class,
            a function or a name of `ray.tune.register_env`, for which see `create_env`.
        context: What that is given.
        num_envs: How many.
        vectorize_mode: Gymnasium's.
        drop_leaves: Parts of the environment's observations that are left out, by path.
        around: Wrappers of what is left.

    Raises:
        ValueError: There is no environment, or it is none that a discrete-action learner can play.
    """
    if not env:
        raise ValueError("An environment is required: call config.environment('CartPole-v1')")
    spec, kwargs = _spec_and_kwargs(env, context)
    mode = VectorizeMode(vectorize_mode)
    if spec.entry_point is None:
        mode = VectorizeMode.VECTOR_ENTRY_POINT
    if mode is VectorizeMode.SYNC:
        made: gym.vector.VectorEnv = ColumnSyncVectorEnv(
            [lambda: _make_single(spec, kwargs, drop_leaves, around) for _ in range(num_envs)]
        )
    elif mode is VectorizeMode.ASYNC:
        make = partial(_make_checked, spec, kwargs, drop_leaves, around)
        made = _make_async([partial(make, i) for i in range(num_envs)])
        made.spec = replace(spec, kwargs=spec.kwargs | kwargs)
    elif drop_leaves:
        raise ValueError(
            f"drop_leaves = {list(drop_leaves)} has no effect on an environment with its own "
            "vectorization: leave the parts out there, or set gym_env_vectorize_mode='sync'"
        )
    elif around:
        raise WrapperError(
            f"`wrappers` go around single environments, and {spec.id} brings its own vectorization "
            "of many: leave them out, and do there what they do"
        )
    else:
        made = gym.make_vec(spec, num_envs=num_envs, vectorization_mode=mode, **kwargs)
    try:
        _check(made, num_envs)
        _check_statistics(made)
    except ValueError:
        made.close()
        raise
    share_statistics(made)
    is_users = mode is VectorizeMode.VECTOR_ENTRY_POINT and type(made) is not AtariGames
    return CheckedVectorEnv(made) if is_users else made


def _make_async(makers: Sequence[Callable[[], gym.Env[Any, Any]]]) -> AsyncVectorEnv:
    """Gymnasium's; observations come through pipes if there is no shared memory of their dtype."""
    try:
        return AsyncVectorEnv(makers)
    except TypeError as error:
        if "has no size" not in str(error):  # Of float16, by ctypes, before any process has begun.
            raise
        return AsyncVectorEnv(makers, shared_memory=False)


def _make_checked(
    spec: EnvSpec,
    kwargs: dict[str, Any],
    drop_leaves: Sequence[str],
    around: Sequence[Layer],
    index: int,
) -> gym.Env[Any, Any]:
    return CheckedEnv(_make_single(spec, kwargs, drop_leaves, around), index)


def _make_single(
    spec: EnvSpec, kwargs: dict[str, Any], drop_leaves: Sequence[str], around: Sequence[Layer]
) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = gym.make(spec, **kwargs)
    if drop_leaves:
        env = DropLeaves(env, drop_leaves)
    env = wrapped(env, around)
    num_actions(env.action_space)
    env = with_newest_mask(env)
    return env if getattr(env.action_space, "start", 0) == 0 else ActionsFromZero(env)


def resolve_env(env: Any) -> Any:
    """What the name of an environment stands for: a creator of `register_env`, or Gymnasium's spec.

    Names are asked of Ray's control process; what is returned needs it no more.
    """
    if not isinstance(env, str):
        return env
    if _global_registry.contains(ENV_CREATOR, env):
        return _global_registry.get(ENV_CREATOR, env)
    register_package(env)
    return gym.envs.registration._find_spec(env)


def _spec_and_kwargs(env: Any, context: EnvContext) -> tuple[EnvSpec, dict[str, Any]]:
    creator = resolve_env(env)
    if isinstance(creator, EnvSpec):
        return creator, dict(context)

    def make() -> Any:
        return create_env(creator, context)

    def make_vec(num_envs: int) -> Any:
        return create_env(creator, context | {"num_envs": num_envs})

    # The id is RLlib's; nothing is registered under it.
    spec: Any = EnvSpec
    return spec("rllib-single-agent-env-v0", entry_point=make, vector_entry_point=make_vec), {}


def _check_statistics(env: gym.vector.VectorEnv) -> None:
    """Raise where nobody could freeze or save the running means of a normalizing wrapper.

    One that is frozen already has none.
    """
    wrapper: Any = env
    while isinstance(wrapper, gym.vector.VectorWrapper):
        normalizes = isinstance(wrapper, (NormalizeObservation, NormalizeReward))
        if normalizes and getattr(wrapper, _OF_NORMALIZERS):
            _refuse_statistics(
                f"{type(wrapper).__name__} around a vector environment",
                "normalize each environment in it, or leave it out",
            )
        wrapper = wrapper.env
    inner: Any = env.unwrapped
    has_normalizers = isinstance(inner, AsyncVectorEnv) and all(
        inner.call("has_wrapper_attr", _OF_NORMALIZERS)
    )
    if has_normalizers and True in inner.get_attr(_OF_NORMALIZERS):
        _refuse_statistics(
            "an environment that normalizes, in a process of its own",
            "set gym_env_vectorize_mode='sync'",
        )


def _refuse_statistics(what: str, remedy: str) -> NoReturn:
    raise ValueError(
        f"{what} keeps running means that no checkpoint would hold, and evaluations would neither "
        f"have nor leave as they are: {remedy}"
    )


def _check(env: gym.vector.VectorEnv, num_envs: int) -> None:
    if env.num_envs != num_envs:
        raise ValueError(
            f"A vector environment of {num_envs} environments is required, as `num_envs` in its "
            f"config says: got {env}, of {env.num_envs}"
        )
    mode = env.metadata.get("autoreset_mode")
    if mode is not gym.vector.AutoresetMode.NEXT_STEP:
        raise ValueError(
            "The vector environment must reset on the step after an episode's end, "
            f"metadata['autoreset_mode'] = AutoresetMode.NEXT_STEP: it has {mode}"
        )
    num_actions(env.single_action_space)
