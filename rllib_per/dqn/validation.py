# SPDX-License-Identifier: MIT
"""What can be wrong with an ApexDQNConfig; each problem says what is required and what came."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import numpy as np
from ray._common.deprecation import DEPRECATED_VALUE
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from rllib_per.bounds import BOUNDS
from rllib_per.buffers.build import buffer_settings
from rllib_per.buffers.sharded import (
    PLACEMENTS,
    RECOVERIES,
    SHARD_DEFAULTS,
    SHARDED,
    is_sharded,
)
from rllib_per.buffers.types import REPLAY_TYPES, can_be_saved, replay_class, replay_options
from rllib_per.learning.optimizers import check_optimizer
from rllib_per.objectives import build_objective
from rllib_per.replay import PrioritizedReplayBuffer, RowSpec, UniformReplayBuffer
from rllib_per.replay.units import range_of_steps
from rllib_per.schedules import check_range, schedule
from rllib_per.sharding.placement import check_shardable

_WHY_NOT_OURS = "leave connectors, `on_episode_step` and `env_runner_cls` alone"

Check = tuple[Callable[[Any], bool], str]


def _bounded(name: str) -> Check:
    bound = BOUNDS[name]
    return bound.admits, str(bound)


def _one_of(*choices: Any) -> Check:
    return lambda value: value in choices, "one of " + ", ".join(map(repr, choices))


def _optional(check: Check) -> Check:
    holds, requirement = check
    return lambda value: value is None or holds(value), f"None or {requirement}"


_NUMBERS = (
    "gamma", "train_batch_size_per_learner", "tau", "target_network_update_freq",
    "num_steps_sampled_before_learning_starts", "adam_epsilon", "broadcast_interval",
    "num_envs_per_env_runner", "num_env_runners", "num_learners", "num_gpus_per_learner",
    "learner_timeout_s", "max_learner_restarts", "metrics_num_episodes_for_smoothing",
)  # fmt: skip
_NUMBERS_OR_NONE = (
    "grad_clip", "training_intensity", "replay_ratio", "frame_stack", "seed",
    "min_sample_timesteps_per_iteration", "max_env_steps_per_episode",
)  # fmt: skip

_CHECKS: dict[str, Check] = {
    **{name: _bounded(name) for name in _NUMBERS},
    **{name: _optional(_bounded(name)) for name in _NUMBERS_OR_NONE},
    "clip_rewards": (
        lambda v: v is None or isinstance(v, bool) or BOUNDS["reward_clip"].admits(v),
        f"None, a bool, or {BOUNDS['reward_clip']}",
    ),
    "target_network_update_unit": _one_of("env_steps", "updates", "episodes"),
    "td_error_loss_fn": _one_of("huber", "mse"),
    "frame_stack_padding": _one_of("zero", "repeat"),
    "fused_optimizer": _one_of(True, False),
    "mixed_precision": _one_of(True, False),
    "compile_module": _one_of(True, False),
    "channels_last": _one_of(True, False),
    "per_env_epsilon": _one_of(True, False),
    "dueling": _one_of(True, False),
    "double_q": _one_of(True, False),
}

_SHARD_CHECKS: dict[str, Check] = {
    "shard_placement": _one_of(*PLACEMENTS),
    "shard_recovery": _one_of(*RECOVERIES),
}

# DQNConfig's settings that nothing here implements: (name, holds when unused, what to do instead).
_REFUSED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("noisy", lambda v: not v, "set noisy=False and explore with `epsilon`"),
    ("num_atoms", lambda v: v == 1, "set num_atoms=1; distributional Q-learning is not offered"),
    ("burn_in_len", lambda v: not v, "set burn_in_len=0; stateful modules are not offered"),
    ("before_learn_on_batch", lambda v: v is None, "transform rewards in the environment instead"),
    ("lr_schedule", lambda v: v is None, "give the schedule as `lr`"),
    ("compress_observations", lambda v: not v, "leave it off; frames are stored once as they are"),
    ("num_aggregator_actors_per_learner", lambda v: not v, "set it to 0; replay batches already"),
    (
        "_learner_connector",
        lambda v: v is None,
        "batches are columnar; use env-to-module connectors",
    ),
    (
        "torch_skip_nan_gradients",
        lambda v: not v,
        "TD errors that are no numbers end the run with an error; set it to False",
    ),
    ("policies_to_train", lambda v: v is None, "there is one policy, and it is trained"),
    ("input_", lambda v: v == "sampler", "offline input is not offered; leave input_='sampler'"),
    ("output", lambda v: v is None, "recording is not offered; leave output=None"),
)


def find_problems(config: Any) -> list[str]:
    """Everything that is wrong with `config`, one sentence each; empty when it is sound."""
    problems = [
        f"`{name}` must be {requirement}: got {getattr(config, name)!r}"
        for name, (holds, requirement) in _CHECKS.items()
        if not holds(getattr(config, name))
    ]
    problems += [
        f"`{name}` = {getattr(config, name)!r} is not supported: {remedy}"
        for name, unused, remedy in _REFUSED
        if not unused(getattr(config, name))
    ]
    problems += [
        f"`{name}` must not be -1: RLlib takes that for a setting that is not given; leave it out"
        for name in (attribute.lstrip("_") for attribute in minus_ones(config))
        if name not in _CHECKS and name != "lr"
    ]
    for part in (_n_step, _fragment_length, _schedules, _parts, _replay, _structure):
        problems += part(config)
    # Buffers check their own settings; what is wrong with n_step or gamma is said above.
    return problems or list(_buffer(config))


def minus_ones(config: Any) -> list[str]:
    """The settings that are -1, and by default are not: RLlib drops them without a word."""
    defaults = vars(type(config)())
    return [
        name
        for name, value in vars(config).items()
        if _is_minus_one(value) and not _is_minus_one(defaults.get(name))
    ]


def _is_minus_one(value: Any) -> bool:
    return isinstance(value, Real) and bool(value == DEPRECATED_VALUE)


def _n_step(config: Any) -> Iterator[str]:
    n_step = config.n_step
    try:
        range_of_steps(n_step)
    except (ValueError, TypeError):
        yield f"`n_step` must be an integer >= 1 or an inclusive range (low, high): got {n_step!r}"


def _fragment_length(config: Any) -> Iterator[str]:
    length = config.rollout_fragment_length
    if length != "auto" and not BOUNDS["batch_size"].admits(length):
        yield f"`rollout_fragment_length` must be 'auto' or an integer >= 1: got {length!r}"


def _schedules(config: Any) -> Iterator[str]:
    beta = config.replay_buffer_config.get("beta", 0.4)
    for name, spec, high in (
        ("epsilon", config.epsilon, 1.0),
        ("lr", config.lr, math.inf),
        ("replay_buffer_config['beta']", beta, 1.0),
    ):
        try:
            built = schedule(spec)
        except (ValueError, TypeError) as error:
            yield f"`{name}`: {error}"
            continue
        try:
            check_range(built, high)
        except ValueError as error:
            yield f"`{name}` {error}"


def _parts(config: Any) -> Iterator[str]:
    for name, check in (("optimizer", check_optimizer), ("objective", build_objective)):
        try:
            check(getattr(config, name))
        except ValueError as error:
            yield f"`{name}`: {error}"


def _replay(config: Any) -> Iterator[str]:
    settings = dict(config.replay_buffer_config)
    kind = settings.pop("type", None)
    for name in {"capacity"} | (settings.keys() if _is_known(kind) else set()):
        if name in BOUNDS and name != "beta" and not BOUNDS[name].admits(settings.get(name)):
            yield (
                f"`replay_buffer_config[{name!r}]` must be {BOUNDS[name]}: got "
                f"{settings.get(name)!r}"
            )
    if kind == SHARDED:
        yield from _shards(
            SHARD_DEFAULTS | settings,
            has_buffer_in_checkpoints=config.store_buffer_in_checkpoints,
        )
    try:
        buffer_class = replay_class(kind)
    except ValueError as error:
        yield f"`replay_buffer_config['type']` {error}"
        return
    yield from _options(kind, replay_options(buffer_class), settings)
    yield from _initial_priority(config)
    if issubclass(buffer_class, EpisodeReplayBuffer):
        yield from _half_open_range(config.n_step)
    if config.store_buffer_in_checkpoints and not can_be_saved(buffer_class):
        yield (
            "`store_buffer_in_checkpoints` must be False (`checkpoint.buffer` in YAML): a "
            f"{buffer_class.__name__} has no state that checkpoints could hold"
        )


def _buffer(config: Any) -> Iterator[str]:
    buffer_class: Any = replay_class(config.replay_buffer_config["type"])
    if buffer_class not in (PrioritizedReplayBuffer, UniformReplayBuffer):
        return
    rows = RowSpec((1,), extras={"priority": ((), np.float32)})
    settings = buffer_settings(config, rows)
    settings["capacity"] = np.max(settings["n_step"]) + 1
    if is_sharded(config):
        try:
            check_shardable(settings)
        except ValueError as error:
            yield f"`replay_buffer_config`: {error}"
            return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns when it is built in earnest.
            buffer_class(**settings)
    except (ValueError, TypeError, MemoryError) as error:
        yield f"`replay_buffer_config`: {error}"


def _options(kind: Any, taken: frozenset[str] | None, settings: dict[str, Any]) -> Iterator[str]:
    if taken is None:
        return
    options = taken | (SHARD_DEFAULTS.keys() if kind == SHARDED else set())
    for key in settings.keys() - options:
        near = difflib.get_close_matches(key, options, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(options)}"
        if key in SHARD_DEFAULTS and kind != SHARDED:
            hint = f"; it belongs to type {SHARDED!r}"
        yield f"`replay_buffer_config[{key!r}]` is no option of the replay buffer{hint}"


def _initial_priority(config: Any) -> Iterator[str]:
    asked = config.replay_buffer_config.get("initial_priority")
    if asked == "td_error" and not _is_ours(config.env_runner_cls):
        yield (
            "`replay_buffer_config['initial_priority']` = 'td_error' needs the Q-values that "
            f"ApexEnvRunner records: {_WHY_NOT_OURS}, or set it to 'max'"
        )
    if asked == "given" and config._env_runner_cls is None:
        yield (
            "`replay_buffer_config['initial_priority']` = 'given' needs an `env_runner_cls` of "
            "yours whose rows have an extra column `priority`; set it to 'max' or 'td_error'"
        )


def _is_known(kind: Any) -> bool:
    """Whether it is one of the buffers whose options are known by name; a class may be, too."""
    return isinstance(kind, str) and kind in REPLAY_TYPES


def _is_ours(env_runner_cls: type) -> bool:
    from rllib_per.runners.env_runner import ApexEnvRunner

    return issubclass(env_runner_cls, ApexEnvRunner)


def _half_open_range(n_step: Any) -> Iterator[str]:
    if isinstance(n_step, (list, tuple)) and len(n_step) == 2 and n_step[0] == n_step[1]:
        yield (
            "`n_step` of RLlib's replay buffers is a range without its upper end: got "
            f"{n_step!r}, which is empty; give one number"
        )


def _shards(settings: dict[str, Any], *, has_buffer_in_checkpoints: bool) -> Iterator[str]:
    for name, (holds, requirement) in _SHARD_CHECKS.items():
        if not holds(settings[name]):
            yield f"`replay_buffer_config[{name!r}]` must be {requirement}: got {settings[name]!r}"
    if settings["shard_recovery"] == "checkpoint" and not has_buffer_in_checkpoints:
        yield (
            "`replay_buffer_config['shard_recovery']` = 'checkpoint' needs the replay buffer in "
            "checkpoints: set store_buffer_in_checkpoints=True (`checkpoint.buffer` in YAML)"
        )
    capacity, num_shards = settings.get("capacity"), settings["num_shards"]
    if all(map(BOUNDS["batch_size"].admits, (capacity, num_shards))) and num_shards > capacity:
        yield (
            "`replay_buffer_config['num_shards']` must be at most the capacity, which shards "
            f"share: got {num_shards} and {capacity}"
        )


def _structure(config: Any) -> Iterator[str]:
    if config.replay_ratio is not None and config.training_intensity is not None:
        yield "`replay_ratio` and `training_intensity` are the same setting: give one of them"
    if config.is_multi_agent:
        yield "multi-agent environments are not supported: use one policy for one agent"
    if not config.enable_rl_module_and_learner:
        yield "the old API stack is not supported: leave `api_stack()` at its defaults"
    if config.max_env_steps_per_episode is not None and not _is_ours(config.env_runner_cls):
        yield (
            "`max_env_steps_per_episode` needs ApexEnvRunner, as RLlib's plays every episode to "
            f"its end: {_WHY_NOT_OURS}, or wrap the environment in gymnasium.wrappers.TimeLimit"
        )
    if config.per_env_epsilon and not _is_ours(config.env_runner_cls):
        yield "`per_env_epsilon` needs ApexEnvRunner: " + _WHY_NOT_OURS
    if config.num_learners > 1 and 0 < config.num_gpus_per_learner < 1:
        yield (
            "`num_gpus_per_learner` must be whole with more than one learner, as no two of them "
            f"may share a GPU when they average gradients: got {config.num_gpus_per_learner}"
        )
    # RLlib itself sets it for evaluation.
    if config.batch_mode != "truncate_episodes" and not config.in_evaluation:
        yield "`batch_mode` has no effect here: leave it out, as replay takes parts of episodes"
    if config.model_config.get("use_lstm"):
        yield "stateful modules are not supported: set model_config use_lstm=False"
