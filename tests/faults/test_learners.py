# SPDX-License-Identifier: MIT
"""Learners over gloo that are killed or hang: new ones go on, or the trial fails."""

import re
import time

import numpy as np
import pytest
import ray
import tree
from ray import tune

from rllib_per.learning.learner_actors import LearnersLostError
from tests.support.apex import apex_config, train_for
from tests.support.kill_once import CartPole, KillOnce
from tests.support.processes import kill, process_of, stop

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

RESTART_S = 120


def two_learners(**settings):
    return apex_config().learners(num_learners=2, **settings)


def states(algorithm):
    """Parameters, target networks and optimizers of every learner."""
    learners = algorithm.learner_group._workers
    kept = ["rl_module", "optimizer"]
    return ray.get([learner.get_state.remote(kept) for learner in learners], timeout=60)


def assert_in_step(algorithm):
    first, second = ({k: v[k] for k in ("rl_module", "optimizer")} for v in states(algorithm))
    tree.map_structure(np.testing.assert_array_equal, first, second)
    steps = [np.asarray(leaf) for leaf in tree.flatten(first["optimizer"])]
    assert steps, "an optimizer that took steps has a state"


@pytest.mark.parametrize("doomed", [[], [1], [0], [0, 1]], ids=["none", "one", "first", "all"])
def test_killed_learners_are_replaced_and_go_on_in_step(build, caplog, doomed):
    algorithm = build(two_learners())
    train_for(algorithm, 1000)
    before = states(algorithm)[0]["rl_module"]
    processes = [process_of(learner) for learner in algorithm.learner_group._workers]
    updates = algorithm.progress.updates
    for learner in doomed:
        kill(processes[learner])
    result = train_for(algorithm, 1000)
    assert algorithm.progress.updates >= updates + 40
    assert result["replay_buffer"]["num_learner_restarts_lifetime"] == bool(doomed)
    assert (result["replay_buffer"]["num_updates_lost_lifetime"] > 0) == bool(doomed)
    assert_in_step(algorithm)
    took_s = re.findall(r"all 2 learners were started again .* in ([\d.]+) s", caplog.text)
    assert len(took_s) == bool(doomed)
    assert all(float(s) < RESTART_S for s in took_s)
    # A few updates from where they were, which is nowhere near a new network's parameters.
    after = states(algorithm)[0]["rl_module"]
    assert distance(after, before) < 0.5 * distance(before, None)
    # Env runners take the new learners' weights: they never fall far behind the updates.
    assert result["replay_buffer"]["weights_lag_max_updates"] <= 40


def distance(state, other):
    """The Euclidean distance between all parameters of two modules, or of one from zero."""
    leaves = tree.flatten(state)
    others = tree.flatten(other) if other is not None else [np.zeros_like(leaf) for leaf in leaves]
    return np.sqrt(sum(np.square(a - b).sum() for a, b in zip(leaves, others, strict=True)))


@pytest.mark.parametrize(
    ("num_learners", "doomed"), [(2, [1]), (2, [0, 1]), (1, [0])], ids=["one", "all", "the only"]
)
def test_a_batch_whose_learners_died_is_learned_by_the_new_ones(build, num_learners, doomed):
    config = apex_config().learners(num_learners=num_learners).env_runners(num_env_runners=0)
    config.training(replay_buffer_config={"type": "prioritized", "capacity": 20_000})
    algorithm = build(config)
    train_for(algorithm, 500)
    before = states(algorithm)[0]["rl_module"]
    processes = [process_of(learner) for learner in algorithm.learner_group._workers]
    for learner in doomed:
        kill(processes[learner])
    result = train_for(algorithm, 500)
    replay = result["replay_buffer"]
    assert replay["num_learner_restarts_lifetime"] == 1
    assert replay["num_updates_lost_lifetime"] == 0
    after = states(algorithm)[0]["rl_module"]
    assert distance(after, before) < 0.5 * distance(before, None)
    if num_learners > 1:
        assert_in_step(algorithm)


def test_a_learner_that_hangs_is_named_after_the_deadline_and_does_not_hold_up_the_end(build):
    algorithm = build(two_learners())
    train_for(algorithm, 500)
    algorithm.loop._timeout_s = 3.0
    stop(process_of(algorithm.learner_group._workers[1]))
    with pytest.raises(TimeoutError, match=r"waited 3 s for any of .* and \d+ updates"):
        train_for(algorithm, 10_000)
    began_s = time.monotonic()
    algorithm.stop()
    assert time.monotonic() - began_s < RESTART_S


def test_without_restarts_a_killed_learner_ends_training_with_what_to_do(build):
    algorithm = build(two_learners(max_learner_restarts=0))
    train_for(algorithm, 500)
    kill(process_of(algorithm.learner_group._workers[0]))
    began_s = time.monotonic()
    with pytest.raises(LearnersLostError, match=r"learner 0 of 2 is gone .*resume from a check"):
        train_for(algorithm, 10_000)
    assert time.monotonic() - began_s < RESTART_S


@pytest.mark.usefixtures("one_ray")
def test_tune_resumes_a_trial_whose_learner_died_from_its_checkpoint(tmp_path):
    marker = tmp_path / "killed"
    config = two_learners(max_learner_restarts=0).callbacks(KillOnce)
    config.environment(CartPole, env_config={"marker": str(marker)})
    tuner = tune.Tuner(
        config.algo_class,
        param_space=config,
        run_config=tune.RunConfig(
            stop={"training_iteration": 6},
            storage_path=str(tmp_path),
            failure_config=tune.FailureConfig(max_failures=1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            verbose=0,
        ),
    )
    (result,) = tuner.fit()
    assert result.error is None
    assert result.metrics["training_iteration"] == 6
    assert result.metrics["replay_buffer"]["num_updates_lifetime"] > int(marker.read_text())
