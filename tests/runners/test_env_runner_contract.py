# SPDX-License-Identifier: MIT
"""What RLlib and its users expect of an env runner: sample, metrics, state, callbacks."""

import pickle

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.counting_env import counting_runner, runner_config

LENGTHS = [[3, 1, 4], [2], [5, 5, 1]]


@pytest.fixture
def runner():
    return counting_runner(LENGTHS)


def values(metrics):
    """Result dict -> {key: number} for the numbers at its top level."""
    return {k: v.peek() for k, v in metrics.items() if hasattr(v, "peek")}


# Sampling.


def test_each_environment_plays_its_share_of_the_episodes_however_short_they_are():
    runner = counting_runner([[1], [50], [10]])
    episodes = runner.sample(num_episodes=8)
    shares = np.bincount([episode.env_index for episode in episodes])
    assert shares.tolist() == [3, 3, 2]
    assert sorted(map(len, episodes)) == [1, 1, 1, 10, 10, 50, 50, 50]
    assert values(runner.get_metrics())["episode_len_mean"] == (3 * 1 + 3 * 50 + 2 * 10) / 8


def test_sampling_episodes_leaves_a_gap_in_the_streams_and_begins_new_ones(runner):
    before = runner.collect(10, epsilon=0.0)
    runner.sample(num_episodes=2)
    after = runner.collect(10, epsilon=0.0)
    assert (after.first_step > before.first_step + 10).all()
    np.testing.assert_array_equal(after.obs[0, :, 2], 0)


def test_timesteps_are_sampled_in_stretches_that_add_up_to_episodes():
    runner = counting_runner([[7]])
    stretches = [episode for _ in range(7) for episode in runner.sample(num_timesteps=3)]
    assert sum(episode.env_steps() for episode in stretches) == 21
    first = [episode for episode in stretches if episode.id_ == stretches[0].id_]
    assert [(episode.t_started, len(episode), episode.is_done) for episode in first] == [
        (0, 3, False),
        (3, 3, False),
        (6, 1, True),
    ]
    metrics = values(runner.get_metrics())
    assert metrics["num_episodes"] == 3
    assert metrics["episode_len_mean"] == 7


@pytest.mark.parametrize("method", ["get_weights", "set_weights"])
def test_methods_that_rllib_has_given_up_name_their_successors(runner, method):
    with pytest.raises(ValueError, match=f"{method[:3]}_state"):
        getattr(runner, method)()


def test_force_reset_begins_new_episodes(runner):
    runner.sample(num_timesteps=4)
    assert all(e.t_started == 0 for e in runner.sample(num_timesteps=4, force_reset=True))


def test_without_amounts_a_rollout_fragment_or_an_episode_per_env_is_sampled():
    runner = counting_runner(LENGTHS, rollout_fragment_length=4)
    assert 12 <= sum(map(len, runner.sample())) < 15
    runner = counting_runner(LENGTHS, batch_mode="complete_episodes")
    assert [episode.is_done for episode in runner.sample()] == [True] * 3


def test_asking_for_both_amounts_is_refused(runner):
    with pytest.raises(ValueError, match="not both"):
        runner.sample(num_timesteps=1, num_episodes=1)


# Metrics.


def test_metrics_have_the_keys_of_rllibs_runner():
    config = runner_config("CartPole-v1", 2)
    ours, theirs = ApexEnvRunner(config=config), SingleAgentEnvRunner(config=config)
    ours.collect(200, epsilon=1.0)
    theirs.sample(num_timesteps=400, random_actions=True)
    missing = theirs.get_metrics().keys() - ours.get_metrics().keys()
    # We have no connectors.
    assert {key for key in missing if "_to_module" not in key and "_to_env" not in key} == set()


def test_metrics_are_of_whole_episodes(runner):
    fragments = [runner.collect(n, epsilon=1.0) for n in (2, 5, 20)]
    rewards, over = (
        np.concatenate([column(f) for f in fragments])
        for column in (lambda f: f.rewards, lambda f: f.terminated | f.truncated)
    )
    returns, lengths = [], []
    for i, episode_lengths in enumerate(LENGTHS):
        ends = np.flatnonzero(over[:, i])
        for e, (start, end) in enumerate(zip([0, *(ends[:-1] + 1)], ends, strict=True)):
            returns.append(float(rewards[start : end + 1, i].sum()))
            lengths.append(episode_lengths[e % len(episode_lengths)])
    metrics = values(runner.get_metrics())
    assert metrics["num_episodes"] == len(returns)
    assert metrics["episode_len_mean"] == pytest.approx(np.mean(lengths))
    assert metrics["episode_return_mean"] == pytest.approx(np.mean(returns), rel=1e-5)
    assert metrics["episode_return_min"] == pytest.approx(min(returns), rel=1e-5)
    assert metrics["episode_return_max"] == pytest.approx(max(returns), rel=1e-5)
    assert metrics["num_env_steps_sampled_lifetime"] == sum(f.num_env_steps for f in fragments)


def test_returns_of_nearly_greedy_environments_are_reported_too():
    lengths = [[1], [2], [3], [4], [5], [6]]
    runner = counting_runner(lengths, per_env_epsilon=True)
    runner.collect(30, epsilon=0.0)
    finished = values(runner.get_metrics())
    # Environments 4 and 5 of 6: returns of about 4 and 5 per step.
    assert finished["low_epsilon_episode_return_mean"] > 4 * 5
    assert finished["episode_return_mean"] < 4 * 5


# State.


def test_state_brings_weights_counters_and_random_numbers_over():
    config = runner_config("CartPole-v1", 2)
    one, other = ApexEnvRunner(config=config), ApexEnvRunner(config=config.copy().debugging(seed=9))
    one.num_env_steps_sampled_lifetime = 77
    one.collect(10, epsilon=0.5)
    other.set_state(pickle.loads(pickle.dumps(one.get_state())))
    assert other.num_env_steps_sampled_lifetime == 77
    weights, copies = one.module.get_state(), other.module.get_state()
    assert all(np.array_equal(weights[name], copies[name]) for name in weights)
    fragments = [r.collect(10, epsilon=1.0) for r in (one, other)]
    np.testing.assert_array_equal(fragments[0].actions, fragments[1].actions)


def weights_of(runner, value):
    return {name: np.full_like(array, value) for name, array in runner.module.get_state().items()}


def weight(runner):
    return next(iter(runner.module.parameters())).detach().ravel()[0].item()


def test_older_weights_than_its_own_are_not_taken(runner):
    for seq_no, value, expected in ((5, 0.5, 0.5), (4, 0.4, 0.5), (6, 0.6, 0.6), (0, 0.1, 0.1)):
        runner.set_state({"rl_module": weights_of(runner, value), "weights_seq_no": seq_no})
        assert weight(runner) == pytest.approx(expected)


def test_after_weights_of_no_number_any_are_taken(runner):
    """RLlib gives a runner that it has restarted the local one's, which may be old."""
    for seq_no, value in ((500, 0.5), (0, 0.1), (400, 0.4)):
        runner.set_state({"rl_module": weights_of(runner, value), "weights_seq_no": seq_no})
        assert weight(runner) == pytest.approx(value)


def test_a_driver_that_does_not_play_hands_out_no_random_numbers():
    """RLlib would give them to all runners that it restarts, which then explored alike."""
    config = runner_config("CartPole-v1").env_runners(num_env_runners=2)
    playing = ApexEnvRunner(config=config, worker_index=1)
    driver = ApexEnvRunner(config=config, worker_index=0, spaces=playing.get_spaces())
    assert "exploration_rng" in playing.get_state()
    assert "exploration_rng" not in driver.get_state()


def test_environments_out_of_reach_play_other_episodes_at_every_resumption():
    def first_observations(env_steps):
        config = runner_config("CartPole-v1", 2, gym_env_vectorize_mode="vector_entry_point")
        runner = ApexEnvRunner(config=config)
        runner.set_random_state(runner.random_state(), env_steps)
        return runner.collect(1, epsilon=0.0).obs[0]

    np.testing.assert_array_equal(first_observations(1000), first_observations(1000))
    assert not np.array_equal(first_observations(1000), first_observations(2000))


def test_a_shared_module_is_played_with_and_never_written(runner):
    module = counting_runner(LENGTHS).module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.25)
    runner.share_module(module)
    runner.set_state({"rl_module": weights_of(runner, 0.75), "weights_seq_no": 3})
    assert weight(runner) == 0.25
    runner.collect(2, epsilon=0.0)
    with torch.no_grad():
        module.q_network = None
    with pytest.raises(TypeError):
        runner.collect(2, epsilon=0.0)


def test_a_checkpoint_of_the_runner_restores_it(runner, tmp_path):
    runner.set_state({"rl_module": weights_of(runner, 0.5), "weights_seq_no": 3})
    runner.save_to_path(tmp_path)
    other = counting_runner(LENGTHS)
    other.restore_from_path(tmp_path)
    assert weight(other) == 0.5


# Modules and callbacks.


def test_rllibs_own_dqn_module_plays():
    spec = RLModuleSpec(module_class=DefaultDQNTorchRLModule)
    config = runner_config("CartPole-v1", 2).rl_module(rl_module_spec=spec)
    assert ApexEnvRunner(config=config).collect(5, epsilon=0.1).num_rows == 10


def test_a_module_without_q_values_is_refused():
    class NoQ(TorchRLModule):
        def setup(self):
            self.layer = torch.nn.Linear(1, 1)

    config = runner_config("CartPole-v1").rl_module(rl_module_spec=RLModuleSpec(module_class=NoQ))
    with pytest.raises(ValueError, match="QNetAPI"):
        ApexEnvRunner(config=config)


class Recorder(RLlibCallback):
    events: list = []  # noqa: RUF012

    def on_environment_created(self, *, env, env_context, **kwargs):
        self.events.append(("environment", env.num_envs))

    def on_episode_created(self, *, episode, env_index, **kwargs):
        self.events.append(("created", env_index, episode.id_, len(episode)))

    def on_episode_start(self, *, episode, env_index, **kwargs):
        episode.custom_data["seen"] = True
        self.events.append(("start", env_index, episode.id_, len(episode)))

    def on_episode_end(self, *, episode, env_index, env_runner, metrics_logger, **kwargs):
        assert episode.custom_data["seen"]
        assert episode.is_terminated != episode.is_truncated
        metrics_logger.log_value("of_mine", episode.get_return(), reduce="max")
        self.events.append(("end", env_index, episode.id_, len(episode)))

    def on_sample_end(self, *, samples, **kwargs):
        self.events.append(("sample_end", [episode.id_ for episode in samples]))


def test_callbacks_follow_an_episode_and_can_log():
    Recorder.events.clear()
    runner = counting_runner([[2], [4]], configure=lambda config: config.callbacks(Recorder))
    runner.collect(4, epsilon=0.0)
    events = [event[0] for event in Recorder.events]
    assert events == [
        *("environment", "created", "created", "start", "start"),
        *("end", "created", "start", "end", "created", "sample_end"),
    ]
    ids = {event[0]: event[2] for event in Recorder.events if event[0] == "end"}
    (samples,) = [event[1] for event in Recorder.events if event[0] == "sample_end"]
    assert len(samples) == 3  # Both, and what the first environment has begun since.
    assert samples[1] == ids["end"]
    assert runner.get_metrics()["of_mine"].peek() > 0


def test_on_sample_end_gets_what_was_played_since_the_last_call():
    played = []
    callbacks = {"on_sample_end": lambda samples, **kwargs: played.append(samples)}
    runner = counting_runner([[3]], configure=lambda config: config.callbacks(**callbacks))
    for _ in range(3):
        runner.collect(2, epsilon=0.0)
    shown = [[(len(s), s.t_started, s.is_done) for s in samples] for samples in played]
    # Rows are two env steps; one and a reset; two of the next episode.
    assert shown == [[(2, 0, False)], [(1, 2, True)], [(2, 0, False)]]
    assert played[0][0].id_ == played[1][0].id_ != played[2][0].id_


def test_a_summary_says_why_it_has_no_observations(runner):
    episode = runner.sample(num_episodes=1)[0]
    with pytest.raises(AttributeError, match=r"length and return, not its data; set .env_runners"):
        episode.get_observations()
    assert pickle.loads(pickle.dumps(episode)).id_ == episode.id_


# Groups of actors.


@pytest.mark.ray
def test_a_group_of_remote_runners_collects_samples_and_takes_weights(one_ray):
    config = runner_config("CartPole-v1", 2, num_env_runners=2)
    config.env_runner_cls = ApexEnvRunner
    group = EnvRunnerGroup(config=config, local_env_runner=True)
    fragments = group.foreach_env_runner(
        "collect", kwargs={"num_rows": 5, "epsilon": 1.0}, local_env_runner=False
    )
    assert sorted(i for f in fragments for i in f.stream_ids.tolist()) == [0, 1, 2, 3]
    local = group.local_env_runner
    local.set_state({"rl_module": weights_of(local, 0.5)})
    group.sync_weights(policies=None, inference_only=True)
    weights = group.foreach_env_runner(
        lambda runner: next(runner.module.parameters()).ravel()[0].item(),
        local_env_runner=False,
    )
    assert weights == [0.5, 0.5]
    episodes = group.foreach_env_runner(
        "sample", kwargs={"num_episodes": 2}, local_env_runner=False
    )
    assert [len(part) for part in episodes] == [2, 2]
    group.stop()
