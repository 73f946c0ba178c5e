# SPDX-License-Identifier: MIT
"""What can be wrong with an ApexDQNConfig; each problem says what is required and what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import VectorizeMode
from ray._common.deprecation import DEPRECATED_VALUE
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from rllib_per.buffers.types import can_be_saved, replay_class, replay_options
from rllib_per.did_you_mean import did_you_mean
from rllib_per.dqn.refusals import find_refusals
from rllib_per.envs.wrappers import as_layer
from rllib_per.learning.optimizers import check_optimizer
from rllib_per.objectives import build_objective
from rllib_per.runners.env_creation import takes_config
from rllib_per.runners.env_runner import ApexEnvRunner
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.objectives import (
    problem_of_initial_priority,
    problems_of_objective,
)
from rllib_per.settings.refused import BATCH_MODE
from rllib_per.settings.replay import AnyReplay, Prioritized, Sharded, replay_of, section_of
from rllib_per.settings.rules import Count, Rule, rule_of, rules_of
from rllib_per.settings.runners import EnvRunners, EpisodeBound, Reporting, RewardClip
from rllib_per.settings.section import names_of
from rllib_per.settings.training import SECTIONS_WITHIN, Training

if TYPE_CHECKING:
    from rllib_per.dqn.config import ApexDQNConfig

# Environments in processes of their own, as YAML and RLlib call it.
_IN_PROCESSES = ("async", VectorizeMode.ASYNC)

_WHY_NOT_OURS = "leave connectors, `on_episode_step` and `env_runner_cls` alone"

# Each setting of ApexDQNConfig, and which values it may have.
_RULES: dict[str, Rule] = {
    **{
        name: rule
        for section in (Training, EnvRunners, LearnerSettings, Reporting, EpisodeBound)
        for name, rule in rules_of(section).items()
    },
    "min_sample_timesteps_per_iteration": rule_of(Count | None),
    "clip_rewards": rule_of(RewardClip),
    "seed": rule_of(Count | None),
}
for _name in ("num_torch_threads", "gym_env_vectorize_mode"):  # Of YAML only, or an enum's.
    del _RULES[_name]


def find_problems(config: ApexDQNConfig) -> list[str]:
    """Everything that is wrong with `config`, one sentence each; empty when it is sound."""
    problems = [
        problem
        for name, rule in _RULES.items()
        if (problem := rule.problem(f"`{name}`", getattr(config, name))) is not None
    ]
    problems += [
        f"`{name}` must not be -1: RLlib takes that for a setting that is not given; leave it out"
        for name in (attribute.lstrip("_") for attribute in minus_ones(config))
        if name not in _RULES
    ]
    # Of an old API stack RLlib fills in settings that it has no more.
    only_new = (find_refusals,) if config.enable_rl_module_and_learner else ()
    for part in (_parts, _wrappers, _replay, _structure, *only_new):
        problems += part(config)
    return problems or list(_relations(config))


def minus_ones(config: ApexDQNConfig) -> list[str]:
    """The settings that are -1, and by default are not: RLlib drops them without a word."""
    defaults = vars(type(config)())
    return [
        name
        for name, value in vars(config).items()
        if _is_minus_one(value) and not _is_minus_one(defaults.get(name))
    ]


def _is_minus_one(value: Any) -> bool:
    return isinstance(value, Real) and bool(value == DEPRECATED_VALUE)


def _parts(config: ApexDQNConfig) -> Iterator[str]:
    checks: dict[str, Callable[[Any], Any]] = {
        **SECTIONS_WITHIN,
        "optimizer": check_optimizer,
        "objective": build_objective,
    }
    for name, check in checks.items():
        try:
            check(getattr(config, name))
        except (ValueError, TypeError) as error:
            yield f"`{name}`: {error}"
    is_rmsprop = isinstance(config.optimizer, Mapping) and config.optimizer.get("type") == "rmsprop"
    if is_rmsprop and config.adam_epsilon != Training.adam_epsilon:
        yield (
            "`adam_epsilon` has no effect on the optimizer 'rmsprop', whose own is `eps` in "
            f"`optimizer`: got {config.adam_epsilon}; leave it out"
        )


def _wrappers(config: ApexDQNConfig) -> Iterator[str]:
    if not isinstance(config.wrappers, (list, tuple)):
        yield f"`wrappers` must be a list: got {config.wrappers!r}"
        return
    for number, item in enumerate(config.wrappers, start=1):
        try:
            layer = as_layer(item)
        except ValueError as error:
            yield f"`wrappers`, number {number}: {error}"
            continue
        if layer.keeps_statistics and config.gym_env_vectorize_mode in _IN_PROCESSES:
            yield (
                f"`wrappers`, number {number}: {layer} would keep statistics of its own in each "
                "process: set gym_env_vectorize_mode='sync'"
            )
    if config.wrappers and not _is_ours(config.env_runner_cls):
        yield (
            f"`wrappers` needs ApexEnvRunner: {_WHY_NOT_OURS}, or wrap the environment in a "
            "function, and give its name in `ray.tune.register_env`"
        )


def _replay(config: ApexDQNConfig) -> Iterator[str]:
    given = dict(config.replay_buffer_config)
    kind = given.pop("type", None)
    try:
        buffer_class = replay_class(kind)
    except ValueError as error:  # What the other keys may be hangs on the type.
        yield f"`replay_buffer_config['type']` {error}"
        return
    section = section_of(kind)
    rules = rules_of(section)
    for name in {"capacity"} | given.keys() & rules.keys():
        problem = rules[name].problem(f"`replay_buffer_config[{name!r}]`", given.get(name))
        if problem is not None:
            yield problem
    if section is Sharded:
        yield from _shards(config, given)
    yield from _options(section, replay_options(buffer_class), given)
    yield from _initial_priority(config)
    if issubclass(buffer_class, EpisodeReplayBuffer):
        yield from _half_open_range(config.n_step)
    if config.store_buffer_in_checkpoints and not can_be_saved(buffer_class):
        yield (
            "`store_buffer_in_checkpoints` must be False (`checkpoint.buffer` in YAML): a "
            f"{buffer_class.__name__} has no state that checkpoints could hold"
        )


def _relations(config: ApexDQNConfig) -> Iterator[str]:
    """What only a whole set of settings can have wrong."""
    training = {name: getattr(config, name) for name in names_of(Training)}
    yield from (sentence for _, sentence in problems_of_objective(training))
    initial = config.replay_buffer_config.get("initial_priority")
    problem = problem_of_initial_priority(initial, training)
    if problem is not None:
        yield f"`replay_buffer_config['initial_priority']` {problem}"
    try:
        capacity = replay_of(config.replay_buffer_config).capacity
    except (ValueError, TypeError) as error:
        yield f"`replay_buffer_config`: {error}"
        return
    if capacity < config.total_train_batch_size:
        yield (
            "`replay_buffer_config['capacity']` must be at least the batch of all learners, or a "
            "transition is drawn several times for each: got "
            f"{capacity} and {config.total_train_batch_size}"
        )


def _options(
    section: type[AnyReplay], taken: frozenset[str] | None, given: Mapping[str, Any]
) -> Iterator[str]:
    if taken is None:
        return
    options = taken | set(names_of(section)) - {"type", "options"}
    for key in given.keys() - options:
        hint = did_you_mean(key, options, f"known are {sorted(options)}")
        if key in names_of(Sharded) and key not in names_of(Prioritized):
            hint = f"; it belongs to type {Sharded.type!r}"
        yield f"`replay_buffer_config[{key!r}]` is no option of the replay buffer{hint}"


def _initial_priority(config: ApexDQNConfig) -> Iterator[str]:
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


def _is_ours(env_runner_cls: type) -> bool:
    return issubclass(env_runner_cls, ApexEnvRunner)


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


def _half_open_range(n_step: Any) -> Iterator[str]:
    if isinstance(n_step, (list, tuple)) and len(n_step) == 2 and n_step[0] == n_step[1]:
        yield (
            "`n_step` of RLlib's replay buffers is a range without its upper end: got "
            f"{n_step!r}, which is empty; give one number"
        )


def _shards(config: ApexDQNConfig, given: Mapping[str, Any]) -> Iterator[str]:
    if given.get("shard_recovery") == "checkpoint" and not config.store_buffer_in_checkpoints:
        yield (
            "`replay_buffer_config['shard_recovery']` = 'checkpoint' needs the replay buffer in "
            "checkpoints: set store_buffer_in_checkpoints=True (`checkpoint.buffer` in YAML)"
        )
    rules = rules_of(Sharded)
    counts = {name: given.get(name, getattr(Sharded, name)) for name in ("num_shards", "capacity")}
    if all(rules[name].admits(count) for name, count in counts.items()) and (
        counts["num_shards"] > counts["capacity"]
    ):
        yield (
            "`replay_buffer_config['num_shards']` must be at most the capacity, which shards "
            f"share: got {counts['num_shards']} and {counts['capacity']}"
        )


def _structure(config: ApexDQNConfig) -> Iterator[str]:
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
    if not _is_names(config.drop_leaves):
        yield f"`drop_leaves` must be a list of names: got {config.drop_leaves!r}"
    elif config.drop_leaves and not _is_ours(config.env_runner_cls):
        yield (
            f"`drop_leaves` needs ApexEnvRunner: {_WHY_NOT_OURS}, or let the environment leave "
            "these parts out"
        )
    env, is_ours = config.env, _is_ours(config.env_runner_cls)
    if isinstance(env, type) and not is_ours and not takes_config(env, config.env_config):
        yield (
            f"`env`: RLlib's env runner calls {env.__name__}(config), which takes keywords: let it "
            f"take `config` as its first parameter, or {_WHY_NOT_OURS}"
        )
    if config.per_env_epsilon and not _is_ours(config.env_runner_cls):
        yield "`per_env_epsilon` needs ApexEnvRunner: " + _WHY_NOT_OURS
    if config.num_learners > 1 and 0 < config.num_gpus_per_learner < 1:
        yield (
            "`num_gpus_per_learner` must be whole with more than one learner, as no two of them "
            f"may share a GPU when they average gradients: got {config.num_gpus_per_learner}"
        )
    if config.batch_mode != "truncate_episodes" and not config.in_evaluation:
        yield f"`batch_mode` {BATCH_MODE}"
