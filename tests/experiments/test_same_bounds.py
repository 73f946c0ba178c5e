# SPDX-License-Identifier: MIT
"""A number that one place refuses, all refuse: YAML, ApexDQNConfig, buffers, shards, drop-in."""

import inspect
import math

import numpy as np
import pytest
from pydantic import ValidationError

from rllib_per import ApexDQNConfig
from rllib_per.drop_in.options import BufferOptions
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.replay import PrioritizedReplayBuffer, RowSpec
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.replay import Prioritized, Sharded, ShardLimits, TransitionSettings
from rllib_per.settings.rules import AnyOf, Bound, ScheduleUpTo, Steps, rule_of, rules_of
from rllib_per.settings.runners import EnvRunners, EpisodeBound, Reporting, RewardClip
from rllib_per.settings.section import names_of
from rllib_per.settings.training import Training

SECTIONS = {
    "env_runners": EnvRunners,
    "training": Training,
    "replay": Sharded,
    "learners": LearnerSettings,
    "reporting": Reporting,
    "evaluation": EpisodeBound,
}


def bound_of(rule):
    """The numbers that a rule is about; None where it is about none."""
    if isinstance(rule, ScheduleUpTo):
        return Bound(0, None if rule.high == math.inf else rule.high)
    if isinstance(rule, Steps):
        return Bound(1, is_integer=True)
    bounds = rule.rules if isinstance(rule, AnyOf) else (rule,)
    return next((bound for bound in bounds if isinstance(bound, Bound)), None)


RULES = {
    name: rule
    for section in (*SECTIONS.values(), TransitionSettings)
    for name, rule in rules_of(section).items()
} | {"clip_rewards": rule_of(RewardClip)}
DROP_IN = {name: rule for name, rule in rules_of(BufferOptions).items() if name not in RULES}
ALL = {name: bound_of(rule) for name, rule in (RULES | DROP_IN).items() if bound_of(rule)}
ROWS = RowSpec((1,))
OF_SHARDS = set(names_of(Sharded)) - set(names_of(Prioritized))
ONLY_IN_YAML = {"num_torch_threads"}
# What has no effect by itself, and what it needs beside it.
NEEDS = {"sigma0": {"noisy": True}}


# -- the places: each says whether it takes a value ------------------------------------------


def section_of(name):
    return next((s for s, section in SECTIONS.items() if name in names_of(section)), None)


def yaml_takes(name, value):
    data = {"environment": {"env": "CartPole-v1"}, "stop": {"env_steps": 1000}}
    if name == "seed":
        data["seed"] = value
    elif name == "clip_rewards":
        data["environment"][name] = value
    else:
        section = section_of(name)
        data[section] = {name: value} | NEEDS.get(name, {})
        if name in OF_SHARDS:
            data[section]["type"] = "sharded"
    try:
        ExperimentConfig.model_validate(data)
    except ValidationError as error:
        return all(detail["type"] == "relation" for detail in error.errors())
    return True


def config_takes(name, value):
    config = ApexDQNConfig().environment("CartPole-v1")
    if section_of(name) == "replay" or name == "reward_clip":
        kind = "sharded" if name in OF_SHARDS else "prioritized"
        settings = {"type": kind, "capacity": 5000}
        config.training(
            train_batch_size_per_learner=1, replay_buffer_config=settings | {name: value}
        )
    else:
        for key, setting in ({name: value} | NEEDS.get(name, {})).items():
            setattr(config, key, setting)
    try:
        config.validate()
        # What RLlib makes of it on the way into an algorithm.
        ApexDQNConfig.from_state(config.get_state()).validate()
    except (ValueError, TypeError):
        return False
    return True


def buffer_takes(name, value):
    try:
        PrioritizedReplayBuffer(**{"capacity": 32, "rows": ROWS} | {name: value})
    except MemoryError:
        return True  # It is within bounds, and too much for this machine.
    except (ValueError, TypeError):
        return False
    return True


def limits_take(name, value):
    try:
        ShardLimits(**{name: value})
    except (ValueError, TypeError):
        return False
    return True


def drop_in_takes(name, value):
    try:
        BufferOptions.of({name: value})
    except (ValueError, TypeError):
        return False
    return True


def places_of(name):
    """Every place where a setting of this name can stand."""
    places = {}
    if name in {"seed", "clip_rewards"} or section_of(name):
        places["yaml"], places["config"] = yaml_takes, config_takes
        if name in ONLY_IN_YAML:
            del places["config"]
    if name in inspect.signature(PrioritizedReplayBuffer).parameters:
        places["buffer"] = buffer_takes
    if name in names_of(ShardLimits):
        places["limits"] = limits_take
    if name in names_of(BufferOptions):
        places["drop_in"] = drop_in_takes
    return places


# -- the values ------------------------------------------------------------------------------


def edges_of(bound):
    """Values below, at and above the bounds, and of other kinds."""
    values = [math.nan, math.inf, -math.inf, -1, -1.0, -0.5, "fast", 0.5j]
    values += [10**400] if not bound.is_integer or bound.high is not None else []
    if bound.is_integer:
        values += [bound.low - 1, bound.low, bound.low + 1, bound.low + 0.5]
        values += [] if bound.high is None else [bound.high, bound.high + 1]
    else:
        values += [np.nextafter(bound.low, -1).item(), bound.low, np.nextafter(bound.low, 1).item()]
        if bound.high is not None:
            values += [bound.high, np.nextafter(bound.high, math.inf).item()]
    return [*values, True, False]


# A bool is a way to say that rewards are clipped; the buffer needs two rows for a transition.
NOT_ALIKE = {("clip_rewards", True), ("clip_rewards", False), ("capacity", 1), ("capacity", True)}
CASES = [
    (name, value)
    for name, bound in ALL.items()
    for value in edges_of(bound)
    if (name, value) not in NOT_ALIKE
]


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_setting_stands_somewhere(name):
    assert places_of(name)


@pytest.mark.filterwarnings("ignore:alpha=")
@pytest.mark.parametrize("name", sorted(name for name in ALL if places_of(name)))
def test_all_places_take_the_same_values(name):
    places = places_of(name)
    for value in (value for other, value in CASES if other == name):
        taken = {place: takes(name, value) for place, takes in places.items()}
        expected = dict.fromkeys(places, ALL[name].admits(value))
        assert taken == expected, f"{name} = {value!r}"


def test_yaml_calls_whole_floats_integers_because_1e6_is_one():
    assert yaml_takes("capacity", 1e6)
    assert not config_takes("capacity", 1e6)


@pytest.mark.parametrize("n_step", [[5, 2], [0, 2], [1], [1, 2, 3], [1, 2.5], [True, 2]])
def test_a_bad_range_of_steps_is_refused_everywhere(n_step):
    places = places_of("n_step")
    assert {place: takes("n_step", n_step) for place, takes in places.items()} == dict.fromkeys(
        places, False
    )


SCHEDULES = [
    [[0, -1]], [[0, 0.5], [10, -1]], {"type": "linear", "initial": 0.5, "final": -0.1, "steps": 9},
    [[0, math.nan]], [], {}, None,
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", ["lr", "epsilon", "beta"])
def test_a_bad_schedule_is_refused_everywhere(name, schedule):
    places = places_of(name)
    assert not places["yaml"](name, schedule)
    assert not places["config"](name, schedule)


# -- -1, which RLlib takes for "not given" ---------------------------------------------------


def numbers_of_the_config():
    config = ApexDQNConfig()
    return sorted(
        name
        for name, value in vars(config).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value != -1
    )


@pytest.mark.parametrize("name", numbers_of_the_config())
def test_no_number_of_rllibs_is_dropped_for_being_minus_one(name):
    config = ApexDQNConfig().environment("CartPole-v1")
    setattr(config, name, -1)
    with pytest.raises((ValueError, TypeError, AssertionError)):
        ApexDQNConfig.from_state(config.get_state()).validate()


@pytest.mark.parametrize("lr", [-1, -1.0])
def test_a_learning_rate_of_minus_one_builds_no_algorithm(lr):
    config = ApexDQNConfig().environment("CartPole-v1").training(lr=lr)
    with pytest.raises(ValueError, match="`lr` must lie in"):
        config.build_algo()
