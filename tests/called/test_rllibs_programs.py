# SPDX-License-Identifier: MIT
"""RLlib's own programs with one word changed, and with only the buffer's line changed."""

import re
from dataclasses import asdict

import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.test_utils import check_train_results_new_api_stack

from rllib_per import ApexDQNConfig, FastPrioritizedEpisodeReplayBuffer
from rllib_per.learning.module import ApexDQNModule
from rllib_per.replay.leaves import ObservationTree, from_leaves
from tests.called.rllibs_programs import (
    DQN_PROGRAMS,
    FAILS_ANYWAY,
    NOT_IN_THIS_RLLIB,
    SAC_PROGRAMS,
    TRAINS,
    atari_dqn,
    atari_sac,
    compilation,
    compilation_of_rainbow,
    mujoco_sac,
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("one_ray"),
    # Pendulum's bounds are doubles.
    pytest.mark.filterwarnings("ignore:.*precision lowered by casting"),
]

# With env runners in actors, or many convolutions.
_SLOW = (compilation, compilation_of_rainbow, atari_dqn, atari_sac, mujoco_sac)


def _params(programs, verdict_of):
    params = []
    for program in programs:
        verdict = verdict_of(program)
        is_slow = verdict in (TRAINS, FAILS_ANYWAY) and program.settings in _SLOW
        marks = pytest.mark.slow if is_slow else ()
        params.append(
            pytest.param(program.settings, verdict, id=program.settings.__name__, marks=marks)
        )
    return params


def with_our_buffer(config):
    """Only `replay_buffer_config` is another: RLlib's keys with our type."""
    keys = ("capacity", "alpha", "beta")
    given = {k: v for k, v in config.replay_buffer_config.items() if k in keys}
    config.replay_buffer_config = {"type": FastPrioritizedEpisodeReplayBuffer, **given}
    return config


def train(config, build):
    config.reporting(min_sample_timesteps_per_iteration=100, min_time_s_per_iteration=0)
    if config.num_steps_sampled_before_learning_starts > 100:
        config.training(num_steps_sampled_before_learning_starts=50)
    algorithm = build(config)
    for _ in range(2):
        check_train_results_new_api_stack(algorithm.train())
    return algorithm


@pytest.mark.parametrize(("settings", "verdict"), _params(DQN_PROGRAMS, lambda p: p.word))
def test_rllibs_program_with_one_word_changed(build, settings, verdict):
    if verdict == NOT_IN_THIS_RLLIB:
        _refused_by_rllib(settings, ApexDQNConfig())
        return
    config = settings(ApexDQNConfig())
    if verdict == TRAINS:
        train(config, build)
        return
    with pytest.raises(ValueError, match=re.escape(verdict)):
        config.validate()


@pytest.mark.parametrize(
    ("settings", "verdict"),
    _params(DQN_PROGRAMS, lambda p: p.buffer),
)
def test_rllibs_dqn_program_with_our_buffer(build, settings, verdict):
    if verdict == NOT_IN_THIS_RLLIB:
        _refused_by_rllib(settings, DQNConfig())
        return
    _train_or_refuse(with_our_buffer(settings(DQNConfig())), verdict, build)


@pytest.mark.parametrize(("settings", "verdict"), _params(SAC_PROGRAMS, lambda p: p.buffer))
def test_rllibs_sac_program_with_our_buffer(build, settings, verdict):
    _train_or_refuse(with_our_buffer(settings(SACConfig())), verdict, build)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "config_class"), [(atari_dqn, DQNConfig), (atari_sac, SACConfig)]
)
def test_rllibs_atari_program_fails_with_rllibs_buffer(build, settings, config_class):
    with pytest.raises(ValueError, match="axes don't match array"):
        train(settings(config_class()), build)


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize(
    "space", [Box(-1.0, 1.0, (8,)), Box(0.0, 1.0, (64, 64, 3)), Dict(a=Box(0, 1, (2,)))], ids=str
)
def test_our_module_gives_what_rllibs_test_of_its_module_asks_for(space, double_q):
    module = ApexDQNModule(
        observation_space=space,
        action_space=Discrete(4),
        model_config=asdict(DefaultModelConfig()) | {"double_q": double_q, "num_atoms": 1},
        inference_only=False,
    )
    module.make_target_networks()
    observations = ObservationTree(space)
    leaves = {leaf.path: torch.rand(5, *leaf.shape) for leaf in observations.leaves}
    obs = observations.nested(from_leaves(leaves))
    batch = {Columns.OBS: obs, Columns.NEXT_OBS: obs}
    shapes = {name: tuple(output.shape) for name, output in module.forward_train(batch).items()}
    assert shapes["qf_preds"] == (5, 4)
    assert shapes.get("qf_next_preds") == ((5, 4) if double_q else None)
    assert module.forward_exploration(batch, t=0)[Columns.ACTIONS].shape == (5,)
    assert module.forward_inference(batch)[Columns.ACTIONS].shape == (5,)


def _refused_by_rllib(settings, config):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        settings(config)


def _train_or_refuse(config, verdict, build):
    if verdict == FAILS_ANYWAY:
        with pytest.raises(IndexError, match="tuple index"):
            train(config, build)
        return
    if verdict == TRAINS:
        algorithm = train(config, build)
        assert type(algorithm.local_replay_buffer) is FastPrioritizedEpisodeReplayBuffer
        assert algorithm.local_replay_buffer.get_sampled_timesteps() > 0
        return
    with pytest.raises(ValueError, match=re.escape(verdict)):
        build(config)
