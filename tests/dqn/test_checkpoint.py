# SPDX-License-Identifier: MIT
"""An algorithm's checkpoint is whole or refused by the name of what is not."""

import functools
import shutil
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig
from rllib_per.checkpoints.archive import ArchiveWriter
from rllib_per.checkpoints.files import CheckpointError
from rllib_per.checkpoints.folders import MANIFEST, REPLACED, AtomicFolder, verify
from rllib_per.dqn.checkpoint import weights_in
from rllib_per.replay import TrainingDivergedError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]

LEARNING_STARTS = 100


def config(num_env_runners=0, **training):
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=num_env_runners, num_envs_per_env_runner=2, rollout_fragment_length=4
        )
        .training(
            n_step=3,
            train_batch_size_per_learner=16,
            num_steps_sampled_before_learning_starts=LEARNING_STARTS,
            **{"store_buffer_in_checkpoints": True, **training},
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .reporting(min_sample_timesteps_per_iteration=200)
        .debugging(seed=3)
    )


@pytest.fixture(scope="module")
def trained():
    algorithm = config().build_algo()
    for _ in range(2):
        algorithm.train()
    yield algorithm
    algorithm.stop()


@pytest.fixture(scope="module")
def other():
    """Takes over what others have saved."""
    algorithm = config().build_algo()
    yield algorithm
    algorithm.stop()


def assert_same(one, other):
    assert other.progress == one.progress
    assert other.replay_ratio.state() == one.replay_ratio.state()
    mine, theirs = one.replay.state(), other.replay.state()
    for name in one.replay.state_arrays:
        np.testing.assert_array_equal(mine[name], theirs[name])
    assert mine["rng"] == theirs["rng"]


# -- saved and restored ----------------------------------------------------------------------


def test_a_checkpoint_is_sealed_and_comes_back(trained, other, tmp_path):
    trained.save_to_path(tmp_path / "new" / "checkpoint")
    verify(tmp_path / "new" / "checkpoint")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["checkpoint"]
    other.restore_from_path(tmp_path / "new" / "checkpoint")
    assert_same(trained, other)


def test_rllib_makes_an_algorithm_of_it(trained, build, tmp_path):
    path = trained.save_to_path(tmp_path)
    algorithm = Algorithm.from_checkpoint(path)
    try:
        assert_same(trained, algorithm)
    finally:
        algorithm.stop()


def test_a_folder_with_content_is_saved_into_and_keeps_what_is_not_ours(trained, other, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        trained.save_to_path(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    other.restore_from_path(tmp_path)
    assert_same(trained, other)


def test_one_that_was_about_to_be_replaced_when_its_process_was_killed_is_restored(
    trained, other, tmp_path
):
    saved = tmp_path / "checkpoint"
    trained.save_to_path(saved)
    saved.rename(tmp_path / f"{REPLACED}checkpoint")
    other.restore_from_path(saved)
    assert_same(trained, other)


def test_weights_that_are_not_finite_replace_no_checkpoint(build, tmp_path):
    algorithm = build(config(store_buffer_in_checkpoints=False))
    algorithm.save_to_path(tmp_path / "checkpoint")
    parameters = list(algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].parameters())
    with torch.no_grad():
        parameters[0][0] = float("nan")
    with pytest.raises(TrainingDivergedError, match="weights must be finite: 1 of the network's"):
        algorithm.save_to_path(tmp_path / "checkpoint")
    verify(tmp_path / "checkpoint")
    algorithm.restore_from_path(tmp_path / "checkpoint")
    assert all(parameter.isfinite().all() for parameter in parameters)


def weights_of_runners(algorithm, group):
    def first_layer(runner):
        return next(iter(runner.module.state_dict().values())).numpy()

    return getattr(algorithm, group).foreach_env_runner(first_layer, local_env_runner=False)


def be_busy(runner):
    time.sleep(2.0)


@pytest.mark.parametrize("way", ["path", "state"])
def test_an_older_checkpoint_reaches_every_runner_of_a_living_algorithm(build, tmp_path, way):
    algorithm = build(config(num_env_runners=1).evaluation(evaluation_num_env_runners=1))
    algorithm.train()
    algorithm.save_to_path(tmp_path)
    state = algorithm.get_state()
    before = algorithm.learner_group.get_weights()["default_policy"]
    for _ in range(2):
        algorithm.train()
    # RLlib's sync leaves out a runner that has two of them still before it.
    for group in (algorithm.env_runner_group, algorithm.eval_env_runner_group):
        group.foreach_env_runner(be_busy, local_env_runner=False, timeout_seconds=0.0)
        for _ in range(3):
            group.sync_weights(
                from_worker_or_learner_group=algorithm.learner_group, inference_only=True
            )
    if way == "path":
        algorithm.restore_from_path(tmp_path)
    else:
        algorithm.set_state(state)
    # As `evaluate` does first.
    algorithm.eval_env_runner_group.sync_weights(
        from_worker_or_learner_group=algorithm.learner_group, inference_only=True
    )
    for group in ("env_runner_group", "eval_env_runner_group"):
        for weights in weights_of_runners(algorithm, group):
            np.testing.assert_array_equal(weights, next(iter(before.values())))
    algorithm.train()
    after = next(iter(algorithm.learner_group.get_weights()["default_policy"].values()))
    assert not np.array_equal(after, next(iter(before.values())))
    algorithm.rollouts.broadcast()
    (weights,) = weights_of_runners(algorithm, "env_runner_group")
    np.testing.assert_array_equal(weights, after)


def test_another_file_system_gets_it_and_gives_it_back(trained, other, tmp_path):
    elsewhere = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    trained.save_to_path("run/checkpoint", filesystem=elsewhere)
    verify(tmp_path / "run" / "checkpoint")
    other.restore_from_path("run/checkpoint", filesystem=elsewhere)
    assert_same(trained, other)


def test_the_buffer_alone_can_be_restored(trained, other, tmp_path):
    trained.save_to_path(tmp_path)
    progress = other.progress
    other.restore_from_path(tmp_path / "replay_buffer", component="replay_buffer")
    assert len(other.replay) == len(trained.replay)
    assert other.progress == progress


def test_a_buffer_by_itself_is_restored_where_checkpoints_leave_it_out(trained, build, tmp_path):
    trained.save_to_path(tmp_path)
    other = build(config(store_buffer_in_checkpoints=False))
    other.restore_from_path(tmp_path / "replay_buffer", component="replay_buffer")
    assert len(other.replay) == len(trained.replay) > 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        other.restore_from_path(tmp_path / "empty", component="replay_buffer")


def test_a_component_that_there_is_not_is_refused(trained, tmp_path):
    trained.save_to_path(tmp_path)
    with pytest.raises(ValueError, match=r"replay_buffer, learner_group, .*: got 'lerner_group'"):
        trained.restore_from_path(tmp_path / "learner_group", component="lerner_group")
    trained.restore_from_path(tmp_path / "learner_group", component="learner_group")


def test_a_given_state_is_saved_in_place_of_its_own(trained, other, tmp_path):
    state = trained.get_state()
    other.save_to_path(tmp_path, state=state)
    other.restore_from_path(tmp_path)
    assert_same(trained, other)


def test_what_a_run_saves_next_shares_what_has_not_changed(build, tmp_path, monkeypatch):
    monkeypatch.setattr(ArchiveWriter.__init__, "__defaults__", (512,))
    algorithm = build(config())
    for name in ("a", "b"):
        algorithm.train()
        algorithm.save_to_path(tmp_path / name)
    inodes = [
        {path.stat().st_ino for path in (tmp_path / name / "replay_buffer").rglob("*.npy")}
        for name in ("a", "b")
    ]
    assert len(inodes[0] & inodes[1]) > 2


# -- random generators -----------------------------------------------------------------------


def test_runners_draw_on_where_they_were(trained, other, tmp_path):
    trained.save_to_path(tmp_path)
    other.restore_from_path(tmp_path)
    states = [a.env_runner_group.local_env_runner.random_state() for a in (trained, other)]
    assert states[0] == states[1]
    # The environments begin episodes anew; the trained one goes on with its own.
    first = [a.env_runner_group.local_env_runner.collect(40, epsilon=1.0) for a in (trained, other)]
    np.testing.assert_array_equal(first[0].actions, first[1].actions)


def test_every_remote_runner_has_generators_of_its_own(build, tmp_path):
    algorithm = build(config(num_env_runners=2))
    algorithm.train()
    saved = algorithm.get_state()["apex_dqn"]["env_runners"]
    exploring = [saved[k]["exploration_rng"] for k in (1, 2)]
    assert exploring[0] != exploring[1]
    algorithm.train()
    algorithm.set_state({"apex_dqn": algorithm.get_state()["apex_dqn"] | {"env_runners": saved}})
    now = algorithm.get_state()["apex_dqn"]["env_runners"]
    assert [now[k] for k in (1, 2)] == [saved[k] for k in (1, 2)]


class OwnGenerator(gym.Env):
    """Draws from a generator that is not Gymnasium's and that `reset(seed=...)` makes, as ALE's."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config):
        pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self._own = np.random.default_rng(seed)
        return self._own.random(1), {}

    def step(self, action):
        return self._own.random(1), 0.0, False, False, {}


@pytest.mark.parametrize("env", ["CartPole-v1", OwnGenerator])
@pytest.mark.parametrize("action_masks", ["auto", "none"])
def test_a_resumed_run_does_not_begin_with_the_episodes_of_its_first_start(
    build, tmp_path, env, action_masks
):
    def of_env():
        return config().environment(env).env_runners(action_masks=action_masks)

    first = build(of_env())
    start = first.env_runner_group.local_env_runner.collect(1, epsilon=1.0).obs[0]
    first.save_to_path(tmp_path)
    second = build(of_env())
    second.restore_from_path(tmp_path)
    again = second.env_runner_group.local_env_runner.collect(1, epsilon=1.0).obs[0]
    assert not np.allclose(start, again)


# -- without the buffer ----------------------------------------------------------------------


def test_without_the_buffer_learning_waits_until_it_is_filled_again(build, tmp_path):
    first = build(config(store_buffer_in_checkpoints=False))
    for _ in range(2):
        first.train()
    first.save_to_path(tmp_path)
    assert not (tmp_path / "replay_buffer").exists()
    second = build(config(store_buffer_in_checkpoints=False))
    second.restore_from_path(tmp_path)
    updates = second.progress.updates
    assert updates == first.progress.updates > 0
    sizes = []
    learn = second.loop._learners.update

    def update(*arguments, **options):
        sizes.append(len(second.replay))
        return learn(*arguments, **options)

    second.loop._learners.update = update
    second.train()
    assert min(sizes) >= LEARNING_STARTS
    assert second.progress.updates == updates + len(sizes)


def test_where_only_the_buffer_is_damaged_the_rest_can_be_restored(trained, build, tmp_path):
    trained.save_to_path(tmp_path)
    next(tmp_path.rglob("frames.*")).write_bytes(b"")
    without = build(config(store_buffer_in_checkpoints=False))
    without.restore_from_path(tmp_path)
    assert without.progress == trained.progress
    assert len(without.replay) == 0
    assert without.replay_ratio.num_added == 0


# -- refused ---------------------------------------------------------------------------------


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def test_one_flipped_bit_in_any_file_is_refused_by_name_and_nothing_changes(
    trained, other, tmp_path
):
    trained.save_to_path(tmp_path)
    state = other.learner_group.get_weights()["default_policy"]
    rng = np.random.default_rng(0)
    names = {path.name for path in files_of(tmp_path)}
    assert {"module_state.pkl", "state.pkl", "rows.npy", "class_and_ctor_args.pkl"} <= names
    for path in files_of(tmp_path):
        content = path.read_bytes()
        changed = bytearray(content)
        changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(CheckpointError) as refused:
            other.restore_from_path(tmp_path)
        assert str(path) in str(refused.value)
        path.write_bytes(content)
    now = other.learner_group.get_weights()["default_policy"]
    for name in state:
        np.testing.assert_array_equal(state[name], now[name])
    other.restore_from_path(tmp_path)


def test_tune_may_put_a_checkpoint_over_another_one(trained, other, tmp_path):
    """As it does for two of the same number: what is in both is the later one's."""
    trained.save_to_path(tmp_path / "a")
    state = trained.get_state()
    trained.train()
    trained.save_to_path(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "b", dirs_exist_ok=True)
    (tmp_path / "b" / ".metadata.json").write_text("{}")
    trained.set_state(state)
    other.restore_from_path(tmp_path / "b")
    assert_same(trained, other)
    (tmp_path / "b" / "state.msgpack").write_text("")  # RLlib would read it.
    with pytest.raises(CheckpointError, match=r"state\.msgpack is not in the manifest"):
        other.restore_from_path(tmp_path / "b")


def test_a_save_that_was_not_finished_is_refused(trained, other, tmp_path):
    trained.save_to_path(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="was not finished"):
        other.restore_from_path(tmp_path)


@pytest.mark.parametrize("name", ["b", "a"], ids=["beside", "in its place"])
def test_a_save_that_fails_leaves_what_was_there(trained, tmp_path, monkeypatch, name):
    trained.save_to_path(tmp_path / "a")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("rllib_per.checkpoints.archive.write_array", full)
        with pytest.raises(OSError, match="No space left"):
            trained.save_to_path(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    verify(tmp_path / "a")
    trained.save_to_path(tmp_path / name)
    verify(tmp_path / name)


def test_a_save_that_is_killed_while_it_replaces_another_leaves_that(trained, tmp_path):
    trained.save_to_path(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / f"{REPLACED}a")  # As far as it had come.
    with AtomicFolder(tmp_path / "a") as folder:
        verify(tmp_path / "a")
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_save_had_replaced_does_not_stop_the_next(trained, tmp_path):
    trained.save_to_path(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / f"{REPLACED}a")
    trained.save_to_path(tmp_path / "a")
    verify(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_buffer_of_another_time_is_no_part_of_a_checkpoint_without_one(trained, build, tmp_path):
    trained.save_to_path(tmp_path)
    without = build(config(store_buffer_in_checkpoints=False))
    without.save_to_path(tmp_path)
    verify(tmp_path)
    assert not (tmp_path / "replay_buffer").exists()


def test_another_capacity_is_refused_and_nothing_changes(trained, build, tmp_path):
    trained.save_to_path(tmp_path)
    settings = {"type": "prioritized", "capacity": 49_999}
    smaller = build(config(replay_buffer_config=settings))
    before = smaller.learner_group.get_weights()["default_policy"]
    with pytest.raises(ValueError, match="the same kind of buffer"):
        smaller.restore_from_path(tmp_path)
    now = smaller.learner_group.get_weights()["default_policy"]
    for name in before:
        np.testing.assert_array_equal(before[name], now[name])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dueling": False}, "the weights are of another network: with q_network.head.value"),
        ({"optimizer": {"type": "rmsprop"}}, "`optimizer` must be as in the checkpoint"),
    ],
)
@pytest.mark.parametrize("way", ["a checkpoint", "a state"])
def test_what_does_not_fit_a_network_or_optimizer_is_refused_and_nothing_changes(
    way, changes, complaint, trained, build, tmp_path
):
    other = build(config(**changes))
    before = other.get_state(not_components="eval_env_runner")
    if way == "a state":
        state = trained.get_state()
        restore = functools.partial(other.set_state, state)
    else:
        trained.save_to_path(tmp_path)
        restore = functools.partial(other.restore_from_path, tmp_path)
    with pytest.raises(ValueError, match=complaint):
        restore()
    now = other.get_state(not_components="eval_env_runner")
    assert now["apex_dqn"]["progress"] == before["apex_dqn"]["progress"]
    assert len(other.replay) == 0
    weights, same = (weights_in(state) for state in (before, now))
    for name in weights:
        np.testing.assert_array_equal(weights[name], same[name])


def test_weights_whose_outputs_mean_something_else_are_refused_and_nothing_changes(build, tmp_path):
    atoms = {"num_atoms": 11, "v_min": 0.0, "v_max": 100.0, "noisy": True}
    build(config(**atoms)).save_to_path(tmp_path)
    other = build(config(**atoms | {"v_max": 50.0}))
    before = other.learner_group.get_weights()["default_policy"]
    complaint = r"`v_max` must be as in the checkpoint.*got 50\.0, and 100\.0 there"
    with pytest.raises(ValueError, match=complaint):
        other.restore_from_path(tmp_path)
    now = other.learner_group.get_weights()["default_policy"]
    for name in before:
        np.testing.assert_array_equal(before[name], now[name])
