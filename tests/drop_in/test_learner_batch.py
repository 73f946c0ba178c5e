# SPDX-License-Identifier: MIT
"""RLlib's own DQN learner makes the same of one BatchEpisode as of one episode per transition."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rllib_per.drop_in.batch_episode import BatchEpisode
from rllib_per.drop_in.calling_algorithm import _read
from rllib_per.drop_in.transition_episodes import transition_episodes
from rllib_per.learning.module import ApexDQNModule
from rllib_per.replay import TransitionBatch
from rllib_per.replay.leaves import ObservationTree

GAMMA = 0.97
SIZE = 32


@pytest.fixture(scope="module")
def learner():
    config = DQNConfig().environment("CartPole-v1").training(gamma=GAMMA, lr=0.0)
    return config.debugging(seed=1).build_learner(env=gym.make("CartPole-v1"))


def random_batch(rng):
    lengths = rng.integers(1, 4, SIZE)
    discounts = np.where(rng.random(SIZE) < 0.3, 0.0, GAMMA**lengths).astype(np.float32)
    batch = TransitionBatch(
        obs=rng.random((SIZE, 4), np.float32),
        actions=rng.integers(0, 2, SIZE),
        n_step_returns=rng.random(SIZE, np.float32),
        next_obs=10.0 * rng.random((SIZE, 4), np.float32),
        bootstrap_discounts=discounts,
        importance_weights=rng.random(SIZE, np.float32),
        ids=np.arange(SIZE),
    )
    return batch, lengths


def td_errors(learner, episodes):
    results = learner.update(episodes=episodes, timesteps={"num_env_steps_sampled_lifetime": 1})
    return np.array(results["default_policy"]["td_error"].peek()[0])


def test_td_errors_are_the_same_and_in_the_same_order(learner):
    batch, lengths = random_batch(np.random.default_rng(0))
    one = td_errors(learner, [BatchEpisode.of(batch, GAMMA)])
    many = td_errors(
        learner,
        transition_episodes(batch, num_steps=lengths, started=np.zeros(SIZE, np.int64)),
    )
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6)


def test_a_forgotten_termination_would_be_seen(learner):
    batch, _ = random_batch(np.random.default_rng(0))
    forgotten = replace(batch, bootstrap_discounts=np.maximum(batch.bootstrap_discounts, GAMMA))
    right, wrong = (td_errors(learner, [BatchEpisode.of(b, GAMMA)]) for b in (batch, forgotten))
    ended = batch.bootstrap_discounts == 0.0
    assert (np.abs(right - wrong)[ended] > 1e-4).all()


class Curious(DQNTorchLearner):
    """May add connectors of its own when it is built, as RLlib's curiosity learners do."""

    def build(self):
        super().build()


class WithLoss(DQNTorchLearner):
    """Changes nothing about batches."""

    def compute_loss_for_module(self, **kwargs):
        return super().compute_loss_for_module(**kwargs)


@pytest.mark.parametrize(("kind", "is_default"), [(None, 1), (WithLoss, 1), (Curious, 0)])
def test_only_rllibs_own_connectors_get_batches_in_place_of_episodes(kind, is_default):
    assert _read(DQNConfig().learners(learner_class=kind)).has_default_connectors == is_default


def test_observations_that_are_trees_reach_the_learner_either_way():
    """With an RLModule that takes them; RLlib's own DQN module does not."""
    space = gym.spaces.Dict(
        pos=gym.spaces.Dict(x=gym.spaces.Box(-1, 1, (4,))),
        pair=gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.MultiBinary(2)]),
    )
    config = DQNConfig().training(gamma=GAMMA, lr=0.0).debugging(seed=1)
    config.rl_module(
        rl_module_spec=RLModuleSpec(ApexDQNModule, model_config={"encoder_hiddens": [8]})
    )
    spaces = {"default_policy": (space, gym.spaces.Discrete(2))}
    learner = config.build_learner(spaces=spaces)
    learner.build()
    batch, lengths = random_batch(np.random.default_rng(0))

    def leaves(array):
        return {
            "pair/0": (array[:, 0] * 3).astype(np.int64) % 3,
            "pair/1": (array[:, :2] > 0.5).astype(np.int8),
            "pos/x": array,
        }

    batch = replace(batch, obs=leaves(batch.obs), next_obs=leaves(batch.next_obs))
    nested = ObservationTree(space).nested
    one = td_errors(learner, [BatchEpisode.of(batch, GAMMA, nested)])
    started = np.zeros(SIZE, np.int64)
    many = td_errors(
        learner, transition_episodes(batch, num_steps=lengths, started=started, nested=nested)
    )
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6)
    assert np.abs(one).min() > 0
