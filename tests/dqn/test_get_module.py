# SPDX-License-Identifier: MIT
"""`algo.get_module()`, RLlib's way to inference, gives the learners' weights in every mode."""

from __future__ import annotations

import numpy as np
import pytest
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per import ApexDQNConfig

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]
NUM_CPUS = 8

SHARDED = {"type": "sharded", "num_shards": 1, "shard_num_cpus": 0.1, "capacity": 2000}
LOCAL = {"type": "prioritized", "capacity": 2000}


def config(
    replay=LOCAL,
    num_env_runners=0,
    num_learners=0,
    *,
    has_connectors=False,
    has_local_runner=True,
    broadcast_interval=7,
):
    """Runners get weights seldom, so that theirs are old when someone asks."""
    connectors = {"env_to_module_connector": lambda env, spaces, device: FlattenObservations()}
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .env_runners(
            num_env_runners=num_env_runners,
            rollout_fragment_length=4,
            create_local_env_runner=has_local_runner,
            **(connectors if has_connectors else {}),
        )
        .learners(num_learners=num_learners)
        .training(
            lr=0.01,
            train_batch_size_per_learner=8,
            replay_ratio=2.0,
            num_steps_sampled_before_learning_starts=20,
            broadcast_interval=broadcast_interval,
            replay_buffer_config=replay,
        )
        .evaluation(evaluation_duration=1)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[8]))
        .reporting(min_sample_timesteps_per_iteration=100)
        .debugging(seed=3)
    )


QUICK = {
    "one process": {},
    "connectors": {"has_connectors": True},
    "asynchronous": {"replay": SHARDED, "num_env_runners": 1},
}
SLOW = {
    "remote learner": {"num_learners": 1},
    "two remote learners": {"num_learners": 2},
    "remote runner": {"num_env_runners": 1},
    "remote runner and learner": {"num_env_runners": 1, "num_learners": 1},
    "remote runner, no local one": {"num_env_runners": 1, "has_local_runner": False},
    "connectors, remote learner": {"has_connectors": True, "num_learners": 1},
    "connectors, remote runner": {"has_connectors": True, "num_env_runners": 1},
    "shards, local runner": {"replay": SHARDED},
    "shards, connectors": {"replay": SHARDED, "num_env_runners": 1, "has_connectors": True},
    "asynchronous, remote learner": {"replay": SHARDED, "num_env_runners": 1, "num_learners": 1},
    "asynchronous, no local runner": {
        "replay": SHARDED,
        "num_env_runners": 1,
        "num_learners": 1,
        "has_local_runner": False,
    },
}
MODES = [
    *(pytest.param(mode, id=name) for name, mode in QUICK.items()),
    *(pytest.param(mode, id=name, marks=pytest.mark.slow) for name, mode in SLOW.items()),
]


def flat(state):
    return np.concatenate([np.ravel(state[name]) for name in sorted(state) if "target" not in name])


def learned(algorithm):
    """The online network of the first learner."""
    return flat(algorithm.learner_group.get_weights()["default_policy"])


def given(algorithm):
    return flat(algorithm.get_module().get_state())


def assert_up_to_date(algorithm):
    np.testing.assert_array_equal(given(algorithm), learned(algorithm))


@pytest.mark.parametrize("mode", MODES)
def test_get_module_has_the_learners_weights_at_any_time(build, tmp_path, mode):
    algorithm = build(config(**mode))
    assert_up_to_date(algorithm)
    untrained = learned(algorithm)
    for _ in range(2):
        algorithm.train()
        assert_up_to_date(algorithm)
    assert not np.allclose(learned(algorithm), untrained, atol=1e-3)

    if mode.get("num_env_runners", 0) == 0:  # RLlib evaluates where it plays.
        algorithm.evaluate()
        assert_up_to_date(algorithm)

    algorithm.save_to_path(tmp_path)
    state, saved = algorithm.get_state(), learned(algorithm)
    for restore in (
        lambda: algorithm.restore_from_path(tmp_path),
        lambda: algorithm.set_state(state),
    ):
        algorithm.train()
        assert not np.array_equal(learned(algorithm), saved)
        restore()
        np.testing.assert_array_equal(learned(algorithm), saved)
        assert_up_to_date(algorithm)

    for changed in ({"lr": 0.02}, {"lr": 0.02, "gamma": 0.9}):  # In place, and all anew.
        algorithm.train()
        algorithm.reset_config(config(**mode).training(**changed))
        assert_up_to_date(algorithm)
        algorithm.train()
        assert_up_to_date(algorithm)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param({"num_env_runners": 1, "num_learners": 1}, marks=pytest.mark.slow),
        {"replay": SHARDED, "num_env_runners": 1, "num_learners": 1},
    ],
    ids=["synchronous", "asynchronous"],
)
def test_the_local_runner_has_the_weights_that_others_play_with(build, mode):
    algorithm = build(config(**mode, broadcast_interval=1))
    untrained = flat(algorithm.env_runner.module.get_state())
    for _ in range(2):
        algorithm.train()
    played = flat(algorithm.env_runner.module.get_state())
    assert not np.allclose(played, untrained, atol=1e-3)
    # RLlib counts updates; those of the last calls may still be on their way.
    assert algorithm.progress.updates - algorithm.env_runner._weights_seq_no <= 20


@pytest.mark.slow
@pytest.mark.parametrize("num_eval_runners", [0, 1])
def test_an_evaluation_on_runners_of_its_own_leaves_it_up_to_date(build, num_eval_runners):
    settings = config(SHARDED, 1, 1).evaluation(
        evaluation_interval=1, evaluation_num_env_runners=num_eval_runners
    )
    algorithm = build(settings)
    for _ in range(2):
        algorithm.train()
        assert_up_to_date(algorithm)
    np.testing.assert_array_equal(
        learned(algorithm), flat(algorithm.get_weights()["default_policy"])
    )


def test_a_callback_gets_the_untrained_module_while_all_is_set_up(build):
    seen = []
    settings = config().callbacks(
        on_algorithm_init=lambda algorithm, **kwargs: seen.append(given(algorithm))
    )
    algorithm = build(settings)
    np.testing.assert_array_equal(seen, [learned(algorithm)])
    algorithm.reset_config(settings.training(gamma=0.9))
    np.testing.assert_array_equal(seen[1], learned(algorithm))


def test_set_weights_takes_what_get_weights_gave(build):
    algorithm = build(config())
    weights, before = algorithm.get_weights(), learned(algorithm)
    weights = {name: {k: v.copy() for k, v in of.items()} for name, of in weights.items()}
    algorithm.train()
    assert not np.array_equal(learned(algorithm), before)
    algorithm.set_weights(weights)
    np.testing.assert_array_equal(learned(algorithm), before)
    np.testing.assert_array_equal(flat(algorithm.env_runner.module.get_state()), before)
    assert_up_to_date(algorithm)
    algorithm.train()
