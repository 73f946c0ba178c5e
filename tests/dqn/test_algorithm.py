# SPDX-License-Identifier: MIT
import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_per import ApexDQNConfig
from rllib_per.observations import WrongDataError
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.wrong_env import WrongLater

pytestmark = pytest.mark.usefixtures("one_ray")

LEARNING_STARTS = 100


def config(**training):
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(num_envs_per_env_runner=2, rollout_fragment_length=4)
        .training(
            n_step=3,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=LEARNING_STARTS,
            **training,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .reporting(min_sample_timesteps_per_iteration=200)
        .debugging(seed=3)
    )


def trained_per_sampled(algorithm, iterations):
    """Transitions trained per env step over `iterations`, once learning has started."""

    def counts(result):
        trained = result.get("learners", {}).get("__all_modules__", {})
        return np.array(
            [
                trained.get("num_env_steps_trained_lifetime", 0),
                result["num_env_steps_sampled_lifetime"],
            ]
        )

    first = counts(algorithm.train())
    for _ in range(iterations):
        result = algorithm.train()
    trained, sampled = counts(result) - first
    return trained / sampled, sampled


@pytest.mark.ray
@pytest.mark.parametrize(("num_env_runners", "intensity"), [(0, 1.0), (0, 6.5), (1, 6.5)])
def test_training_intensity_is_what_it_says_for_any_number_of_runners(
    build, num_env_runners, intensity
):
    algorithm = build(
        config(training_intensity=intensity).env_runners(num_env_runners=num_env_runners)
    )
    ratio, sampled = trained_per_sampled(algorithm, iterations=3)
    # Off by the batch that credit waits for, and by the open windows of every stream.
    slack = (16 + intensity * 3 * 2 * max(num_env_runners, 1)) / sampled
    assert ratio == pytest.approx(intensity, abs=slack)


@pytest.mark.ray
@pytest.mark.parametrize("replay", ["prioritized", "sharded"])
def test_wrong_data_of_env_runner_actors_ends_training_by_its_name(build, replay):
    """RLlib would end the actor and start it again, for ever."""
    settings = {"type": replay, "capacity": 1000}
    if replay == "sharded":
        settings |= {"num_shards": 1, "shard_num_cpus": 0}
    settings = config(replay_buffer_config=settings).environment(WrongLater)
    algorithm = build(settings.env_runners(num_env_runners=1))
    with pytest.raises(WrongDataError, match=r"environment 0 .* observed nan at its step"):
        algorithm.train()


@pytest.mark.ray
def test_results_carry_rllibs_keys_and_those_of_replay(build):
    algorithm = build(config())
    algorithm.train()
    result = algorithm.train()
    assert result["env_runners"]["episode_return_mean"] > 0
    assert result["num_env_steps_sampled_lifetime"] >= 400
    assert result["learners"]["default_policy"]["qf_loss"] >= 0
    for timer in (
        "env_runner_sampling_timer",
        "replay_buffer_add_data_timer",
        "replay_buffer_sampling_timer",
        "learner_update_timer",
        "replay_buffer_update_prios_timer",
        "synch_weights",
    ):
        assert result["timers"][timer] >= 0
    replay = result["replay_buffer"]
    assert replay["num_transitions"] > 300
    assert replay["beta"] == 0.4
    assert 0 < replay["importance_weight_mean"] <= 1
    assert 0 < replay["effective_sample_share"] <= 1
    assert replay["num_stale_updates_lifetime"] == 0


@pytest.mark.ray
def test_priorities_that_change_no_draw_are_told_of(build, caplog):
    buffer = {"type": "uniform", "capacity": 2000, "alpha": 0.3}
    build(config(replay_buffer_config=buffer))
    (told,) = [record.getMessage() for record in caplog.records if "alike" in record.message]
    assert "replay of the type 'uniform' draws all transitions alike" in told
    assert "replay.alpha: leave" in told


@pytest.mark.ray
def test_learning_changes_the_priorities(build):
    algorithm = build(config())
    algorithm.train()
    before = algorithm.replay.state()["masses"]
    algorithm.train()
    after = algorithm.replay.state()["masses"][: len(before)]
    assert (before[before > 0] != after[before > 0]).any()


@pytest.mark.ray
def test_a_local_runner_plays_with_the_learners_own_weights(build):
    algorithm = build(config())
    algorithm.train()
    learner = algorithm.learner_group._learner.module["default_policy"]
    assert algorithm.env_runner.module is learner


@pytest.mark.ray
def test_remote_runners_get_the_learners_weights(build):
    algorithm = build(config().env_runners(num_env_runners=1))
    for _ in range(2):
        algorithm.train()
    algorithm.rollouts.broadcast()
    learned = algorithm.learner_group._learner.module["default_policy"].get_state()
    states = algorithm.env_runner_group.foreach_env_runner(
        "get_state", kwargs={"components": "rl_module"}, local_env_runner=False
    )
    played = states[0]["rl_module"]
    assert played
    for name, value in played.items():
        np.testing.assert_array_equal(value, learned[name])


@pytest.mark.ray
def test_two_remote_learners_take_equal_slices_of_each_batch(build):
    algorithm = build(config(replay_ratio=2.0).learners(num_learners=2))
    ratio, sampled = trained_per_sampled(algorithm, iterations=2)
    assert ratio == pytest.approx(2.0, abs=(32 + 12) / sampled)


@pytest.mark.ray
def test_a_connector_takes_rllibs_runner_and_still_learns(build):
    algorithm = build(
        config().env_runners(
            env_to_module_connector=lambda env, spaces, device: FlattenObservations()
        )
    )
    for _ in range(2):
        result = algorithm.train()
    assert result["replay_buffer"]["num_transitions"] > 300
    assert result["learners"]["default_policy"]["qf_loss"] >= 0


@pytest.mark.ray
def test_rllibs_runner_stores_an_observation_whole_if_one_frame_is_asked_for(build):
    settings = config().env_runners(env_runner_cls=SingleAgentEnvRunner, frame_stack=1)
    algorithm = build(settings)
    algorithm.train()
    assert algorithm.rollouts.row_spec.stack is None


class NumberedRun(gym.Env):
    """Observes the number of its run and the step of its episode, which has 70."""

    observation_space = gym.spaces.Box(0, 100, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config):
        self._run = config["run"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._t = 0
        return np.array([self._run, 0], np.float32), {}

    def step(self, action):
        self._t += 1
        return np.array([self._run, self._t], np.float32), 1.0, False, self._t == 70, {}


@pytest.mark.ray
@pytest.mark.parametrize("runner_class", [SingleAgentEnvRunner, ApexEnvRunner])
@pytest.mark.parametrize("component", [None, "replay_buffer"])
def test_no_transition_joins_what_was_restored_and_an_episode_under_way(
    build, tmp_path, runner_class, component
):
    """Both runs have done as many steps, so that their rows have the same numbers."""

    def run(number):
        settings = config(store_buffer_in_checkpoints=True)
        settings.environment(NumberedRun, env_config={"run": number})
        settings.env_runners(env_runner_cls=runner_class, num_envs_per_env_runner=1)
        algorithm = build(settings)
        algorithm.train()
        return algorithm

    run(1).save_to_path(tmp_path)
    algorithm = run(2)
    algorithm.restore_from_path(tmp_path / (component or ""), component=component)
    algorithm.train()
    runs = set()
    for _ in range(100):
        batch = algorithm.replay.sample(32, beta=0.4)
        np.testing.assert_array_equal(batch.obs[:, 0], batch.next_obs[:, 0])
        np.testing.assert_array_less(batch.obs[:, 1], batch.next_obs[:, 1])
        runs |= set(batch.obs[:, 0])
    assert runs == {1, 2}


@pytest.mark.ray
def test_evaluation_plays_the_episodes_asked_for_and_feeds_no_replay(build):
    algorithm = build(config().evaluation(evaluation_duration=6))
    algorithm.train()
    stored = algorithm.replay.metrics()["num_transitions_added_lifetime"]
    result = algorithm.evaluate()
    assert result["env_runners"]["num_episodes"] == 6
    assert algorithm.replay.metrics()["num_transitions_added_lifetime"] == stored


@pytest.mark.ray
def test_the_same_seed_gives_the_same_run(build):
    def run(seed):
        algorithm = build(config().debugging(seed=seed))
        returns = [algorithm.train()["env_runners"]["episode_return_mean"] for _ in range(3)]
        weights = algorithm.learner_group.get_weights()["default_policy"]
        values = np.concatenate([np.ravel(weights[name]) for name in sorted(weights)])
        return returns, algorithm.replay.sample(64, 0.4).ids.tolist(), values.tolist()

    first, again, other = run(3), run(3), run(4)
    assert first == again
    assert all(one != its for one, its in zip(first, other, strict=True))


@pytest.mark.ray
@pytest.mark.parametrize("with_buffer", [True, False])
def test_a_checkpoint_restores_progress_and_by_choice_the_buffer(build, tmp_path, with_buffer):
    first = build(config(store_buffer_in_checkpoints=with_buffer))
    for _ in range(3):
        first.train()
    first.save_to_path(tmp_path / "checkpoint")
    second = build(config(store_buffer_in_checkpoints=with_buffer))
    second.restore_from_path(tmp_path / "checkpoint")
    assert second.progress == first.progress
    assert second.learner_group._learner.get_state()["last_target_update_ts"] > 0
    if with_buffer:
        ours, theirs = first.replay.sample(64, 0.5), second.replay.sample(64, 0.5)
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.obs, theirs.obs)
    else:
        # Nothing to learn from yet: wait for as many transitions as a fresh run does.
        assert len(second.replay) == 0
        second.replay_ratio.add(LEARNING_STARTS - 1)
        assert second.replay_ratio.take_updates() == 0


@pytest.mark.ray
def test_a_restored_run_trains_on(build, tmp_path):
    first = build(config(store_buffer_in_checkpoints=True))
    first.train()
    first.save_to_path(tmp_path / "checkpoint")
    second = build(config(store_buffer_in_checkpoints=True))
    second.restore_from_path(tmp_path / "checkpoint")
    steps = second.progress.env_steps
    result = second.train()
    assert second.progress.env_steps >= steps + 200
    assert result["num_env_steps_sampled_lifetime"] == second.progress.env_steps


LEAVES = {"signal": "discrete", "leaves": ["discrete", "multi_binary", "vector"], "nested": True}


def sample_of_leaves(replay):
    """A batch, whose leaves fit together, and to the rewards."""
    batch = replay.sample(64, 0.5)
    assert batch.obs.keys() == {"multi_binary", "pair/0", "pair/1"}
    assert batch.obs["pair/1"].dtype == np.int64
    pays = np.where(np.isin(batch.obs["pair/1"], [3, 6]) == (batch.actions == 1), 1.0, -1.0)
    np.testing.assert_array_equal(batch.n_step_returns, pays)
    return batch.obs


@pytest.mark.ray
@pytest.mark.parametrize(
    "runner", ["ours", "rllibs", pytest.param("actors", marks=pytest.mark.slow)]
)
def test_trees_of_observations_go_all_the_way_and_into_checkpoints(build, tmp_path, runner):
    def settings():
        own = config(store_buffer_in_checkpoints=True, lr=3e-3)
        own.environment("rllib_per/LeafProbe-v1", env_config=LEAVES)
        if runner == "rllibs":
            own.env_runners(env_runner_cls=SingleAgentEnvRunner)
        elif runner == "actors":
            own.env_runners(num_env_runners=1)
            replay = {"type": "sharded", "num_shards": 2, "shard_num_cpus": 0, "capacity": 4000}
            own.training(replay_buffer_config=replay)
        return own

    first = build(settings())
    for _ in range(3):
        result = first.train()
    assert result["learners"]["default_policy"]["qf_loss"] >= 0
    first.save_to_path(tmp_path / "checkpoint")
    second = build(settings())
    second.restore_from_path(tmp_path / "checkpoint")
    ours, theirs = (sample_of_leaves(each.replay) for each in (first, second))
    if runner != "actors":  # Whose batches are drawn ahead.
        for path, leaf in ours.items():
            np.testing.assert_array_equal(leaf, theirs[path])


class DictCartPole(gym.ObservationWrapper):
    """CartPole, cart and pole apart."""

    def __init__(self, context):
        super().__init__(gym.make("CartPole-v1"))
        low, high = self.env.observation_space.low, self.env.observation_space.high
        self.observation_space = gym.spaces.Dict(
            cart=gym.spaces.Box(low[:2], high[:2]), pole=gym.spaces.Box(low[2:], high[2:])
        )

    def observation(self, observation):
        return {"cart": observation[:2], "pole": observation[2:]}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cartpole_is_learned_from_a_dict(build):
    learning = ApexDQNConfig().environment(DictCartPole).debugging(seed=0)
    learning.env_runners(num_envs_per_env_runner=4, rollout_fragment_length=1)
    learning.training(
        lr=1e-3,
        n_step=3,
        train_batch_size_per_learner=64,
        replay_ratio=32,
        epsilon=[(0, 1.0), (8000, 0.04)],
        num_steps_sampled_before_learning_starts=1000,
        target_network_update_freq=500,
        grad_clip=10,
    )
    learning.rl_module(model_config={"encoder_hiddens": [64], "hiddens": [128]})
    learning.reporting(metrics_num_episodes_for_smoothing=20)
    algorithm = build(learning)
    returns = 0.0
    while returns < 150 and algorithm.progress.env_steps < 30_000:
        returns = algorithm.train()["env_runners"]["episode_return_mean"]
    assert returns >= 150  # Random play earns 22.


@pytest.mark.ray
@pytest.mark.parametrize("masks_in", ["info", "observation"])
def test_rllibs_env_runner_takes_no_illegal_action_either(build, masks_in):
    """The environment raises on any."""
    settings = config().environment("rllib_per/MaskProbe-v1", env_config={"masks_in": masks_in})
    masks = "info" if masks_in == "info" else "auto"
    settings.env_runners(env_runner_cls=SingleAgentEnvRunner, action_masks=masks)
    algorithm = build(settings.evaluation(evaluation_duration=4))
    for _ in range(2):
        algorithm.train()
    batch = algorithm.replay.sample(64, 0.4)
    taken = batch.obs["action_mask"][np.arange(64), batch.actions]
    assert taken.all()
    assert algorithm.progress.updates > 0


@pytest.mark.ray
def test_a_connector_that_flattens_masks_is_refused(build):
    settings = config().environment(
        "rllib_per/MaskProbe-v1", env_config={"masks_in": "observation"}
    )
    settings.env_runners(env_to_module_connector=lambda env, spaces, device: FlattenObservations())
    with pytest.raises(ValueError, match="must leave the leaf 'action_mask'"):
        build(settings)
