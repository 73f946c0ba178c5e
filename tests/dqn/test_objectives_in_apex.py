# SPDX-License-Identifier: MIT
"""Whatever is learned trains in every loop, and goes on from a checkpoint."""

import numpy as np
import pytest

from tests.support.apex import apex_config, train_for
from tests.support.learner import BEYOND_Q_VALUES

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]
NUM_CPUS = 6

REPLAY = {"type": "prioritized", "capacity": 2000, "alpha": 0.6, "beta": 0.4}


def local(**settings):
    config = apex_config(replay_buffer_config=REPLAY, store_buffer_in_checkpoints=True, **settings)
    return config.env_runners(num_env_runners=0)


def weights_of(algorithm):
    state = algorithm.get_module().get_state()
    return {name: np.asarray(value) for name, value in state.items()}


@pytest.mark.parametrize("settings", BEYOND_Q_VALUES.values(), ids=BEYOND_Q_VALUES)
def test_it_trains_in_the_driver_and_goes_on_from_a_checkpoint(build, settings, tmp_path):
    first = build(local(**settings))
    train_for(first, 500)
    first.save_to_path(tmp_path / "checkpoint")
    restored = [build(local(**settings)) for _ in range(2)]
    for algorithm in restored:
        algorithm.restore_from_path(tmp_path / "checkpoint")
        assert algorithm.progress.updates == first.progress.updates > 20
        assert_equal(weights_of(algorithm), weights_of(first))
        train_for(algorithm, 500)
    assert_equal(*map(weights_of, restored))
    assert restored[0].progress.updates > first.progress.updates


def assert_equal(weights, others):
    for name, value in weights.items():
        np.testing.assert_array_equal(value, others[name])


@pytest.mark.parametrize("double_q", [True, False])
def test_munchausen_says_that_it_overrules_double_q(build, caplog, double_q):
    build(local(munchausen={}, double_q=double_q))
    told = [r for r in caplog.records if "`munchausen` overrules `double_q`" in r.getMessage()]
    assert len(told) == double_q


def test_uniform_replay_says_that_priorities_have_no_effect(build, caplog):
    config = local(priority="td_error")
    config.training(replay_buffer_config=REPLAY | {"type": "uniform", "alpha": 0.9})
    build(config)
    (told,) = [r.getMessage() for r in caplog.records if "draws all transitions" in r.getMessage()]
    assert "whatever is set as replay.alpha, training.priority: leave that out" in told


@pytest.mark.slow
@pytest.mark.parametrize("num_learners", [0, 2])
@pytest.mark.parametrize("settings", BEYOND_Q_VALUES.values(), ids=BEYOND_Q_VALUES)
def test_it_trains_beside_replay_shards(build, settings, num_learners):
    algorithm = build(apex_config(**settings).learners(num_learners=num_learners))
    result = train_for(algorithm, 1500)
    assert algorithm.progress.updates > 20
    assert np.isfinite(result["learners"]["default_policy"]["qf_loss"])
