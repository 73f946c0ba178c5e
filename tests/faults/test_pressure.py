# SPDX-License-Identifier: MIT
"""A small object store and a slow learner: what is under way stays bounded, and nothing is lost."""

import numpy as np
import pytest
import ray
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_per.buffers import sharded
from tests.support.apex import AHEAD, BATCH_SIZE, REPLAY, REPLAY_RATIO, apex_config, train_for
from tests.support.frames_env import FRAME, STACK, StackedFrames
from tests.support.object_store import num_spilled_bytes
from tests.support.planting_learner import PlantingLearner, SlowLearner, planted

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

# Ray lets go of an object up to a second after everybody else has.
STORE_BYTES = 200_000_000
LARGE_BATCH = 256
BYTES_PER_BATCH = LARGE_BATCH * 2 * STACK * FRAME[0] * FRAME[1]


@pytest.fixture
def small_store():
    ray.init(
        "local",
        num_cpus=10,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.mark.parametrize("bounded", [True, False], ids=["bounded", "unbounded"])
def test_training_in_a_small_object_store_spills_or_stalls_only_without_our_bound(
    small_store, monkeypatch, bounded
):
    if not bounded:
        monkeypatch.setattr(sharded, "within_object_store", lambda limits: limits)
    replay = {**REPLAY, "capacity": 2000, "max_requests_in_flight": 16}
    config = apex_config(
        replay_buffer_config=replay, train_batch_size_per_learner=LARGE_BATCH, replay_ratio=32.0
    )
    config.environment(StackedFrames).env_runners(frame_stack=STACK)
    config.learners(num_learners=1, learner_class=SlowLearner)
    config.rl_module(model_config=DefaultModelConfig(conv_filters=[[4, 8, 8]]))
    config.reporting(min_sample_timesteps_per_iteration=100)
    algorithm = config.build_algo()
    try:
        train_for(algorithm, 500)
        has_stalled = False
    except TimeoutError:
        has_stalled = True
    finally:
        algorithm.stop()
    if bounded:
        assert not has_stalled
        assert algorithm.progress.updates * BYTES_PER_BATCH > 2 * STORE_BYTES
        assert num_spilled_bytes() == 0
    else:
        assert has_stalled or num_spilled_bytes() > 0


@pytest.mark.parametrize("learner", [PlantingLearner, SlowLearner], ids=["fast", "slow"])
def test_a_slow_learner_fills_no_queue_and_misses_no_transition(build, monkeypatch, learner):
    config = apex_config(replay_buffer_config={**REPLAY, "alpha": 1.0})
    algorithm = build(config.learners(num_learners=1, learner_class=learner))
    learned = []
    put = algorithm.replay.priorities.put

    def put_and_record(update):
        learned.append(update.ids)
        put(update)

    monkeypatch.setattr(algorithm.replay.priorities, "put", put_and_record)
    for _ in range(4):
        replay = train_for(algorithm, 500)["replay_buffer"]
        assert replay["num_requests_in_flight"] <= AHEAD
        assert (
            replay["num_updates_in_flight"] <= algorithm.config.max_requests_in_flight_per_learner
        )
        assert replay["num_collects_in_flight"] <= 4
        assert replay["num_adds_in_flight_max"] <= 16
        assert replay["num_priority_calls_in_flight"] <= 2 * 8
        # Runners wait for the learner: two rounds ahead, and those that were under way.
        assert replay["num_updates_due"] <= 4 * 16 * REPLAY_RATIO / BATCH_SIZE
    assert len(learned) >= 200
    assert share_of_planted(algorithm, np.concatenate(learned)) == 1.0


def share_of_planted(algorithm, learned):
    """Of the transitions that were learned from, how many have the mass that was planted."""
    while not algorithm.replay.room(2000):
        algorithm.replay.collect(algorithm.loop._requests.popleft())
    algorithm.replay.flush()
    (part,) = algorithm.replay.collect(algorithm.replay.request(2000, 1.0))
    right = []
    for block in ray.get(list(part.blocks)):
        rows = np.isin(block.ids, learned)
        # With β = 1 weights go as one over the mass, so their products are all the same.
        products = block.importance_weights[rows] * planted(block.ids[rows])
        right.append(np.isclose(products, np.median(products), rtol=1e-3))
    assert sum(map(len, right)) > 100
    return np.concatenate(right).mean()
