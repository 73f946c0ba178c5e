# SPDX-License-Identifier: MIT
"""Settings are typed, checked when they are made, and all that is read of RLlib's config."""

import ast
import math
import pickle
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from rllib_per import ApexDQNConfig
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.network import Network
from rllib_per.settings.replay import (
    REPLAY_SECTIONS,
    OwnBuffer,
    Prioritized,
    Sharded,
    Uniform,
    replay_buffer_config,
    replay_of,
    section_of,
    without_effect,
)
from rllib_per.settings.rules import Bound, check, rule_of
from rllib_per.settings.runners import EnvRunners, Reporting
from rllib_per.settings.section import as_dict, names_of, sentences
from rllib_per.settings.training import ObjectiveChoice, Optimizer, Training

PACKAGE = Path(__file__).parents[2] / "rllib_per"
SECTIONS = [Training, EnvRunners, LearnerSettings, Network, Reporting, *REPLAY_SECTIONS.values()]


@pytest.mark.parametrize("section", [*SECTIONS, OwnBuffer])
def test_every_setting_has_a_sentence_and_a_default_that_its_rule_admits(section):
    assert set(names_of(section)) == set(sentences(section))
    given = {"type": "own.Buffer"} if section is OwnBuffer else {}
    assert as_dict(section(**given)).keys() == set(names_of(section))


def test_a_section_cannot_be_changed_and_travels():
    settings = Sharded(num_shards=3)
    with pytest.raises(FrozenInstanceError):
        settings.num_shards = 4
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize("value", [True, math.nan, math.inf, -math.inf, "0.5", None, 1j])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises((TypeError, ValueError), match="alpha must be a number in"):
        check(Prioritized, alpha=value)


@pytest.mark.parametrize("value", [np.int64(5), np.uint8(5), 5])
def test_integers_of_numpy_are_integers(value):
    assert Prioritized(capacity=value).capacity == 5


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "one of True, False"),
        (Bound(1, 4), "a number in [1, 4]"),
        (Bound(0, 1, above=True), "a number in (0, 1]"),
        (Bound(2, is_integer=True), "an integer >= 2"),
    ],
)
def test_a_rule_says_in_words_what_it_admits(annotation, words):
    rule = annotation if isinstance(annotation, Bound) else rule_of(annotation)
    assert str(rule) == words


def test_a_schedule_of_yaml_is_equal_to_a_default_and_has_lists_there():
    points = [[0, 1.0], [10_000, 0.05]]
    read = TypeAdapter(Training).validate_python({"epsilon": points})
    assert read == Training()
    assert as_dict(read)["epsilon"] == points


def test_a_type_of_replay_has_a_class_and_rllibs_names_mean_ours():
    assert section_of("sharded") is Sharded
    assert section_of("EpisodeReplayBuffer") is Uniform
    assert type(replay_of({"type": "PrioritizedEpisodeReplayBuffer"})) is Prioritized
    assert section_of("some.Buffer") is section_of(dict) is OwnBuffer


@pytest.mark.parametrize("kind", ["uniform", "EpisodeReplayBuffer", "rllib_uniform"])
def test_what_uniform_replay_makes_no_use_of_is_known(kind):
    def unused(priority=None, replay=None):
        return without_effect(replay_of({"type": kind} | (replay or {})), priority)

    # RLlib's config has an alpha and a beta also where a program gives the type alone.
    assert unused(replay={name: getattr(Prioritized, name) for name in ("alpha", "beta")}) == []
    assert unused(replay={"capacity": 99}) == []
    assert unused("td_error", replay={"beta": 0.5}) == ["replay.beta", "training.priority"]
    assert without_effect(replay_of({"type": "prioritized", "alpha": 0.5}), "kl") == []
    if kind != "rllib_uniform":
        drawn = {"alpha": 0.5, "stratified": False, "gather_threads": 2}
        assert unused(replay=drawn) == ["replay.alpha"]
        assert unused(replay={"priority": "huber"}) == ["replay.priority"]
        assert unused(replay={"initial_priority": "td_error"}) == ["replay.initial_priority"]


def test_keywords_of_a_class_of_ones_own_stay_apart_and_come_back():
    given = {"type": dict, "capacity": 9, "beta": 0.5, "newest": 3, "options": 4}
    settings = replay_of(given)
    assert settings.options == {"newest": 3, "options": 4}
    assert replay_buffer_config(settings) == given


def test_further_keys_of_an_optimizer_or_objective_are_its_options():
    assert Optimizer.of({"type": "rmsprop", "eps": 0.1}) == Optimizer("rmsprop", {"eps": 0.1})
    assert as_dict(Optimizer("rmsprop", {"eps": 0.1})) == {"type": "rmsprop", "eps": 0.1}
    assert ObjectiveChoice.of(dict).type is dict


def test_a_config_says_in_settings_what_its_attributes_say():
    config = (
        ApexDQNConfig()
        .environment("CartPole-v1", clip_rewards=True)
        .env_runners(num_env_runners=3, num_envs_per_env_runner=2, frame_stack=4, explore=False)
        .training(
            n_step=[2, 5],
            tau=0.5,
            train_batch_size_per_learner=32,
            replay_ratio=3.0,
            objective="expected",
            replay_buffer_config={"type": "sharded", "alpha": 0.7, "initial_priority": "td_error"},
        )
        .learners(num_learners=2, learner_timeout_s=9.0)
        .debugging(seed=11)
    )
    settings = config.settings()
    for section in (settings.training, settings.runners, settings.learners):
        for name in {each.name for each in fields(section)} & vars(config).keys():
            value = getattr(section, name)
            if name not in ("objective", "optimizer"):
                assert value == getattr(config, name), name
    assert settings.replay.alpha == 0.7
    assert settings.play.records_q
    assert settings.transitions.n_step == (2, 5)
    assert settings.transitions.reward_clip == 1.0
    assert settings.runners.num_envs_total == 6
    assert settings.runners.num_rows == 5
    assert (settings.replay_ratio, settings.batch_size) == (3.0, 64)
    assert settings.is_asynchronous
    assert not settings.explore


# -- the doors -------------------------------------------------------------------------------

# Who is about RLlib's config itself, or has to hand it on to RLlib.
ABOUT_THE_CONFIG = {
    "dqn/config.py",
    "dqn/refusals.py",
    "dqn/translation.py",
    "dqn/validation.py",
}
# Whose `config` is one.
OF_A_NETWORK = {"learning/module.py", "learning/networks.py", "learning/encoders.py"}
READ_AT_A_DOOR = {
    "dqn/algorithm.py": {
        "settings", "replay_buffer_config", "env", "stats_cls_lookup", "build_learner_group",
    },
    "dqn/reconfiguration.py": {
        "copy", "validate", "freeze", "to_dict", "reporting", "env_runner_cls",
    },
    "dqn/runner_weights.py": {"get_rl_module_spec"},
    "dqn/runner_failures.py": {  # In an env runner of any class.
        "restart_failed_env_runners", "delay_between_env_runner_restarts_s",
    },
    "learning/learner.py": {
        "settings", "get_config_for_module", "add_default_connectors_to_learner_pipeline",
    },
    "learning/learner_actors.py": {"num_learners"},
    "runners/env_runner.py": {
        "settings", "num_gpus_per_env_runner", "create_env_on_local_worker", "get_rl_module_spec",
        "observation_space", "action_space",
    },
    "runners/saveable_runner.py": {
        "build_env_to_module_connector", "build_module_to_env_connector",
    },
    "runners/callbacks.py": {"callbacks_class"},
}  # fmt: skip


def attributes_of_configs(source):
    """What a file reads of anything that is called `config`."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value
            if "config" in (getattr(owner, "id", ""), getattr(owner, "attr", "")):
                yield node.attr


@pytest.mark.parametrize("room", ["buffers", "dqn", "learning", "runners", "sharding"])
def test_rllibs_config_is_read_at_the_doors_only(room):
    for source in sorted((PACKAGE / room).glob("*.py")):
        name = f"{room}/{source.name}"
        if name not in (*ABOUT_THE_CONFIG, *OF_A_NETWORK):
            assert set(attributes_of_configs(source)) == READ_AT_A_DOOR.get(name, set()), name
