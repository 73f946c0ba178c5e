# SPDX-License-Identifier: MIT
import copy

import numpy as np
import pytest
from ray.rllib.algorithms import sac
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from rllib_per import FastPrioritizedEpisodeReplayBuffer, PrioritizedReplayBuffer
from rllib_per.drop_in.sac import SAC, SACConfig
from tests.support.connectors import RewardDoubler
from tests.support.numbered_env import REWARD_STEP, NumberedEnv
from tests.support.tuner import fail_and_restore

pytestmark = [
    pytest.mark.usefixtures("one_ray"),
    pytest.mark.ray,
    # Pendulum's bounds are doubles, and looking up "DQN" imports an environment of RLlib's that
    # Gymnasium finds fault with.
    pytest.mark.filterwarnings("ignore:.*precision lowered by casting"),
    pytest.mark.filterwarnings("ignore:.*The obs returned by the `reset"),
]

TYPE = "rllib_per.FastPrioritizedEpisodeReplayBuffer"


def config_with(buffer=None, *, env=NumberedEnv, env_config=None, **training):
    """Stock DQN with one line changed."""
    return (
        DQNConfig()
        .environment(env, env_config=env_config or {})
        .training(
            replay_buffer_config={"type": TYPE, "capacity": 2000, **(buffer or {})},
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=20,
            # Q-values stay where they are: near 0.
            **{"lr": 1e-12, "gamma": 0.01, **training},
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8]))
        .reporting(min_sample_timesteps_per_iteration=100, min_time_s_per_iteration=0)
        .debugging(seed=3, log_level="ERROR")
    )


@pytest.fixture
def keep():
    """Takes algorithms and stops them all."""
    algorithms = []
    yield lambda algorithm: algorithms.append(algorithm) or algorithm
    for algorithm in algorithms:
        algorithm.stop()


@pytest.fixture
def traffic(monkeypatch):
    """What passes between the buffers and the algorithm: batches, and (ids, TD errors)."""
    batches, answers = [], []
    sample, update = PrioritizedReplayBuffer.sample, PrioritizedReplayBuffer.update_priorities

    def sample_and_note(self, *args):
        batches.append(sample(self, *args))
        return batches[-1]

    def update_and_note(self, ids, td_errors):
        answers.append((np.array(ids), np.array(td_errors)))
        update(self, ids, td_errors)

    monkeypatch.setattr(PrioritizedReplayBuffer, "sample", sample_and_note)
    monkeypatch.setattr(PrioritizedReplayBuffer, "update_priorities", update_and_note)
    return batches, answers


def share_of_wrong_priorities(batches, answers):
    """How many TD errors differ from the return of the transition that they were given for."""
    returns = {}
    for batch in batches:
        returns |= dict(zip(batch.ids.tolist(), batch.n_step_returns.tolist(), strict=True))
    off = np.concatenate([np.abs(td - [returns[i] for i in ids.tolist()]) for ids, td in answers])
    return np.mean(off > REWARD_STEP / 2)


# -- the ways to an algorithm ----------------------------------------------------------------


def test_build_algo(keep):
    algorithm = keep(config_with().build_algo())
    assert algorithm.train()["replay_buffer"]["num_env_steps_added_lifetime"] > 0
    assert type(algorithm.local_replay_buffer) is FastPrioritizedEpisodeReplayBuffer
    assert algorithm.local_replay_buffer.get_sampled_timesteps() > 0


def test_the_class_itself_as_the_type(keep):
    config = config_with({"type": FastPrioritizedEpisodeReplayBuffer})
    algorithm = keep(config.build_algo())
    algorithm.train()
    assert algorithm.local_replay_buffer.get_sampled_timesteps() > 0


def test_a_config_dict(keep):
    settings = config_with({"alpha": 0.7}).to_dict()
    algorithm = keep(DQN(config=settings))
    result = algorithm.train()
    assert isinstance(algorithm.config.replay_buffer_config["type"], type)
    assert type(algorithm.local_replay_buffer) is FastPrioritizedEpisodeReplayBuffer
    assert result["replay_buffer"]["alpha"] == 0.7


@pytest.mark.parametrize("n_step", [1, 3])
def test_from_checkpoint(keep, tmp_path, n_step):
    algorithm = keep(config_with(n_step=n_step).build_algo())
    algorithm.train()
    algorithm.save_to_path(tmp_path / "checkpoint")
    restored = keep(DQN.from_checkpoint(tmp_path / "checkpoint"))
    before = restored.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"))
    assert before >= 100
    result = restored.train()
    assert result["num_env_steps_sampled_lifetime"] > before
    assert type(restored.local_replay_buffer) is FastPrioritizedEpisodeReplayBuffer
    assert restored.local_replay_buffer.get_sampled_timesteps() > 0


def test_tuner_and_its_restore(tmp_path):
    config = config_with(env_config={"fails_until": str(tmp_path / "failed"), "fails_at": 250})
    result = fail_and_restore("DQN", config, tmp_path, iterations=4)
    assert result.metrics["iterations_since_restore"] < 4
    assert result.metrics["replay_buffer"]["num_env_steps_added_lifetime"] > 0


# -- the right priorities --------------------------------------------------------------------


@pytest.mark.parametrize("num_learners", [0, 2])
@pytest.mark.parametrize("options", [{}, {"episodes": "transitions"}])
def test_every_td_error_reaches_its_transition(keep, traffic, num_learners, options):
    algorithm = keep(config_with(options).learners(num_learners=num_learners).build_algo())
    algorithm.train()
    batches, answers = traffic
    assert len(answers) > 50
    assert {len(batch) for batch in batches} == {16 * max(num_learners, 1)}
    assert share_of_wrong_priorities(batches, answers) == 0.0
    shuffled = [(np.random.default_rng(1).permutation(ids), td) for ids, td in answers]
    assert share_of_wrong_priorities(batches, shuffled) > 0.5


def test_gamma_1_learns_from_real_episodes_with_two_learners(keep, traffic):
    algorithm = keep(config_with(gamma=1.0).learners(num_learners=2).build_algo())
    algorithm.train()
    assert share_of_wrong_priorities(*traffic) < 0.01
    assert not algorithm.local_replay_buffer._gives_batches()


def test_beta_is_annealed(keep):
    buffer = {"beta": 0.2, "beta_final": 0.8, "beta_steps": 50}
    algorithm = keep(config_with(buffer).build_algo())
    assert algorithm.train()["replay_buffer"]["beta"] == pytest.approx(0.8)


def test_the_same_seed_gives_the_same_run(keep, traffic):
    batches, _ = traffic
    runs = []
    for _ in range(2):
        keep(config_with(lr=1e-3).build_algo()).train()
        runs.append([batch.ids.tolist() for batch in batches])
        batches.clear()
    assert runs[0] == runs[1]


# -- other readers of episodes ---------------------------------------------------------------


@pytest.mark.parametrize("num_learners", [0, 2])
def test_a_users_connector_sees_one_real_episode_per_transition(keep, traffic, num_learners):
    config = config_with().learners(num_learners=num_learners, learner_connector=RewardDoubler)
    keep(config.build_algo()).train()
    batches, answers = traffic
    halved = [(ids, td / 2.0) for ids, td in answers]
    assert share_of_wrong_priorities(batches, halved) == 0.0


def test_multi_agent_is_refused_when_the_algorithm_is_built():
    config = config_with().multi_agent(
        policies={"a", "b"}, policy_mapping_fn=lambda agent_id, *_: agent_id
    )
    with pytest.raises(ValueError, match="MultiAgentPrioritizedEpisodeReplayBuffer"):
        config.build_algo()


# -- what can't work -------------------------------------------------------------------------


@pytest.mark.parametrize("model_config", [{"use_lstm": True}, DefaultModelConfig(use_lstm=True)])
def test_an_lstm_is_refused_before_anything_is_sampled(model_config):
    config = config_with(env="CartPole-v1", burn_in_len=2).rl_module(model_config=model_config)
    with pytest.raises(ValueError, match=r"use_lstm=True: such a module learns from sequences"):
        config.build_algo()


def test_what_a_stateful_module_played_is_refused():
    episode = SingleAgentEpisode(
        observations=[0.0, 1.0],
        actions=[0],
        rewards=[1.0],
        extra_model_outputs={"state_out": [{"h": np.zeros(2)}]},
        len_lookback_buffer=0,
    )
    buffer = FastPrioritizedEpisodeReplayBuffer(keep_extra_model_outputs=False)
    with pytest.raises(ValueError, match=r"stateful.*or keep RLlib's EpisodeReplayBuffer"):
        buffer.add(episode)
    assert buffer.get_num_timesteps() == 0


# -- SAC -------------------------------------------------------------------------------------


def sac_config():
    return (
        SACConfig()
        .environment("Pendulum-v1")
        .training(
            replay_buffer_config={"type": TYPE, "capacity": 2000},
            n_step=3,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=50,
        )
        .reporting(min_sample_timesteps_per_iteration=100, min_time_s_per_iteration=0)
        .debugging(seed=3, log_level="ERROR")
    )


def test_sac_trains_with_it_and_comes_back_from_a_checkpoint(keep, tmp_path):
    algorithm = keep(sac_config().build_algo())
    algorithm.train()
    assert algorithm.local_replay_buffer.get_sampled_timesteps() > 0
    algorithm.save_to_path(tmp_path / "checkpoint")
    restored = keep(SAC.from_checkpoint(tmp_path / "checkpoint"))
    assert type(restored.local_replay_buffer) is FastPrioritizedEpisodeReplayBuffer


def test_rllibs_own_config_of_sac_takes_the_class(keep):
    config = sac.SACConfig().update_from_dict(sac_config().to_dict())
    config.training(replay_buffer_config={"type": FastPrioritizedEpisodeReplayBuffer})
    algorithm = keep(sac.SAC(config=config))
    algorithm.train()
    assert type(algorithm.local_replay_buffer) is FastPrioritizedEpisodeReplayBuffer
    assert algorithm.local_replay_buffer.get_sampled_timesteps() > 0


def test_sac_takes_it_from_a_dict(keep):
    algorithm = keep(SAC(config=sac_config().to_dict()))
    assert type(algorithm.local_replay_buffer) is FastPrioritizedEpisodeReplayBuffer


def test_sac_still_checks_everything_else():
    config = sac_config().training(grad_clip=-1.0)
    with pytest.raises(ValueError, match="grad_clip"):
        config.validate()
    other = copy.deepcopy(sac_config())
    other.replay_buffer_config = {"type": "ReplayBuffer"}
    with pytest.raises(ValueError, match="EpisodeReplayBuffer"):
        other.validate()
