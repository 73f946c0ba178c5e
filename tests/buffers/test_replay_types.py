# SPDX-License-Identifier: MIT
"""One line of `replay_buffer_config` swaps the buffer: ours, RLlib's, or one's own."""

import numpy as np
import pytest
from gymnasium.utils.seeding import np_random
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.replay_buffers import EpisodeReplayBuffer, PrioritizedEpisodeReplayBuffer

from rllib_per import ApexDQNConfig, PrioritizedReplayBuffer, UniformReplayBuffer
from rllib_per.buffers.build import buffer_keywords
from rllib_per.buffers.rllib_replay import RLlibReplay
from rllib_per.buffers.types import REPLAY_TYPES, replay_class
from rllib_per.dqn.validation import find_problems
from rllib_per.settings.replay import Prioritized, TransitionSettings
from rllib_per.sharding import ShardedReplay
from tests.support.own_buffer import NewestBuffer

OWN = "tests.support.own_buffer.NewestBuffer"


def config(kind, **options):
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_envs_per_env_runner=2, rollout_fragment_length=4)
        .training(
            n_step=3,
            replay_ratio=2.0,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=100,
            replay_buffer_config={"type": kind, "capacity": 2000, **options},
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .reporting(min_sample_timesteps_per_iteration=200)
        .debugging(seed=3)
    )


class Logged:
    """It has no `__init__`."""


class Passing(Logged, PrioritizedReplayBuffer):
    """A class of one's own whose keywords are those of its base."""

    def __init__(self, capacity, rows, **kwargs):
        super().__init__(capacity, rows, **kwargs)


def test_a_buffer_without_room_for_all_windows_is_refused(build, one_ray):
    tight = config("prioritized", capacity=100).env_runners(num_envs_per_env_runner=64)
    with pytest.raises(ValueError, match="must be at least 320 rows: got 100, for num_envs = 64"):
        build(tight.training(num_steps_sampled_before_learning_starts=50))


def test_the_seed_of_a_run_decides_that_of_its_draws():
    def seed(of_run):
        return buffer_keywords(Prioritized(), TransitionSettings(seed=of_run), None)["seed"]

    assert seed(3) == seed(3) != seed(4)
    assert seed(3) is not None
    assert seed(None) is None


def test_keywords_of_a_class_of_ones_own_reach_its_base(build, one_ray):
    options = {"alpha": 0.9, "weight_normalization": None, "priority_epsilon": 0.5}
    built = config(Passing, **options).training(store_buffer_in_checkpoints=False)
    replay = build(built).replay
    assert isinstance(replay, Passing)
    assert replay.alpha == 0.9
    assert replay._normalization is None
    gymnasiums, _ = np_random(built.seed)  # Of environment 0.
    assert not np.intersect1d(replay._rng.random(100), gymnasiums.random(1000)).size


def problems(built):
    with pytest.raises(ValueError, match="ApexDQNConfig") as caught:
        built.validate()
    return str(caught.value)


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*(k for k in REPLAY_TYPES if k != "sharded"), OWN, NewestBuffer])
def test_every_kind_is_valid_as_a_method_and_as_a_dict(kind):
    built = config(kind).training(store_buffer_in_checkpoints=False)
    built.validate()
    from_dict = ApexDQNConfig().update_from_dict(built.to_dict())
    from_dict.validate()
    resolved = replay_class(from_dict.replay_buffer_config["type"])
    assert resolved is replay_class(kind)


def test_rllibs_own_names_in_a_program_mean_our_buffers():
    assert replay_class("PrioritizedEpisodeReplayBuffer") is PrioritizedReplayBuffer
    assert replay_class("EpisodeReplayBuffer") is UniformReplayBuffer
    assert replay_class("rllib_prioritized") is PrioritizedEpisodeReplayBuffer
    assert replay_class(EpisodeReplayBuffer) is EpisodeReplayBuffer


@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        ("rllib_priorotized", {}, "did you mean 'rllib_prioritized'?"),
        ("rllib_prioritized", {"alhpa": 0.5}, "did you mean 'alpha'?"),
        ("rllib_prioritized", {"priority_epsilon": 0.1}, "'priority_epsilon'"),
        ("rllib_uniform", {"num_shards": 2}, "belongs to type 'sharded'"),
        ("no.such.module.Buffer", {}, "can't be imported"),
        ("collections.OrderedDict", {}, "has no add, sample, update_priorities, metrics"),
        ("rllib_per.FastPrioritizedEpisodeReplayBuffer", {}, "here 'prioritized' is the same"),
        (
            "ray.rllib.utils.replay_buffers.MultiAgentEpisodeReplayBuffer",
            {},
            "ApexDQN has one agent",
        ),
        (OWN, {"newset": 5}, "did you mean 'newest'?"),
        (OWN, {}, "`store_buffer_in_checkpoints` must be False"),
    ],
)
def test_what_cannot_work_is_refused_with_a_hint(kind, options, complaint):
    built = config(kind, **options).training(store_buffer_in_checkpoints=True)
    assert complaint in problems(built)


def test_a_type_that_does_not_exist_is_the_only_complaint():
    built = ApexDQNConfig().environment("CartPole-v1")
    built.training(replay_buffer_config={"type": "prioritised", "alhpa": 1})
    (complaint,) = find_problems(built)
    assert "`replay_buffer_config['type']` must be one of" in complaint
    assert complaint.endswith("did you mean 'prioritized'?")


def test_a_range_that_rllib_takes_for_empty_is_refused():
    assert "which is empty" in problems(config("rllib_prioritized").training(n_step=(3, 3)))
    config("rllib_prioritized").training(n_step=(1, 3)).validate()


# -- training ----------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize(
    ("kind", "replay_type"),
    [
        ("prioritized", PrioritizedReplayBuffer),
        ("uniform", UniformReplayBuffer),
        ("rllib_prioritized", RLlibReplay),
        ("rllib_uniform", RLlibReplay),
        (PrioritizedEpisodeReplayBuffer, RLlibReplay),
        (OWN, NewestBuffer),
    ],
)
def test_cartpole_trains_with_every_kind(build, one_ray, kind, replay_type):
    algorithm = build(config(kind))
    for _ in range(2):
        result = algorithm.train()
    assert type(algorithm.replay) is replay_type
    assert len(algorithm.replay) > 300
    assert algorithm.progress.updates > 20
    assert np.isfinite(result["learners"]["default_policy"]["qf_loss"])
    assert result["replay_buffer"].get("num_stale_updates_lifetime", 0) == 0


@pytest.mark.ray
def test_cartpole_trains_with_shards(build, one_ray):
    algorithm = build(config("sharded").env_runners(num_env_runners=1))
    algorithm.train()
    assert type(algorithm.replay) is ShardedReplay


@pytest.mark.slow
@pytest.mark.ray
def test_td_errors_of_two_learners_reach_rllibs_buffer(build, one_ray):
    algorithm = build(config("rllib_prioritized", alpha=0.6).learners(num_learners=2))
    algorithm.train()
    buffer = algorithm.replay.buffer
    masses = {buffer._sum_segment[leaf] for *_, leaf in buffer._indices}
    assert len(masses) > 20
    assert algorithm.replay.metrics()["num_stale_updates_lifetime"] == 0


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["rllib_prioritized", "rllib_uniform"])
def test_a_checkpoint_holds_rllibs_buffer_too(build, one_ray, tmp_path, kind):
    first = build(config(kind).training(store_buffer_in_checkpoints=True))
    first.train()
    first.save_to_path(tmp_path / "checkpoint")
    second = build(config(kind).training(store_buffer_in_checkpoints=True))
    second.restore_from_path(tmp_path / "checkpoint")
    assert len(second.replay) == len(first.replay) > 100
    assert second.progress.env_steps == first.progress.env_steps
    second.train()
    assert second.progress.updates > first.progress.updates
