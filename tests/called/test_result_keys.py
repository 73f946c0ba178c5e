# SPDX-License-Identifier: MIT
"""What someone may stop on or plot of RLlib's DQN is in our results too."""

import pytest
from ray.rllib.algorithms.dqn.dqn import DQNConfig

from rllib_per import ApexDQNConfig

pytestmark = pytest.mark.slow

# By prefix or by ending: why there is none. docs/rllib_compatibility.md has them.
EXCEPT = {
    "connector": "nothing passes through connectors",
    "sum_episodes_length": "nothing passes through connectors",
    "replay_buffer/agent_": "there is one agent",
    "replay_buffer/module_": "there is one module",
    "replay_buffer/num_agent_": "there is one agent",
    "replay_buffer/num_module_": "there is one module",
    "replay_buffer/actual_n_step": "windows are as long as they can be",
    "replay_buffer/env_step_utilization": "every stored step can be drawn",
    "replay_buffer/num_resamples": "no draw is thrown away",
    "replay_buffer/num_episodes_": "steps are stored, not episodes",
    "_per_sample": "a batch has the size that was asked for",
}


def keys(result, prefix=""):
    found = set()
    for key, value in result.items():
        if key in ("config", "perf"):  # The latter is measured by the clock, now and then.
            continue
        if isinstance(value, dict) and value:
            found |= keys(value, f"{prefix}{key}/")
        else:
            found.add(f"{prefix}{key}")
    return found


@pytest.fixture(scope="module")
def results(one_ray):
    found = {}
    for config_class in (DQNConfig, ApexDQNConfig):
        algorithm = (
            config_class()
            .environment("CartPole-v1")
            .training(num_steps_sampled_before_learning_starts=50, grad_clip=40.0)
            .reporting(min_sample_timesteps_per_iteration=200)
            .evaluation(evaluation_interval=1, evaluation_duration=1)
            .build_algo()
        )
        for _ in range(3):
            result = algorithm.train()
        found[config_class] = result
        algorithm.stop()
    return found


@pytest.mark.ray
def test_results_have_the_keys_of_rllibs_dqn(results):
    missing = keys(results[DQNConfig]) - keys(results[ApexDQNConfig])
    unexplained = {
        key
        for key in missing
        if not any(part in key for part in EXCEPT)
    }  # fmt: skip
    assert unexplained == set()


@pytest.mark.ray
def test_every_exception_is_one(results):
    missing = keys(results[DQNConfig]) - keys(results[ApexDQNConfig])
    for part in EXCEPT:
        assert any(part in key for key in missing), part


@pytest.mark.ray
def test_counts_under_rllibs_names_are_right(results):
    ours = results[ApexDQNConfig]
    replay, learner = ours["replay_buffer"], ours["learners"]["default_policy"]
    assert learner["total_loss"] == learner["qf_loss"]
    steps = ours["num_env_steps_sampled_lifetime"]
    assert replay["num_env_steps_added_lifetime"] == pytest.approx(steps, abs=2)
    assert replay["num_env_steps_added"] == pytest.approx(steps / 3, abs=2)
    trained = ours["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"]
    assert replay["num_env_steps_sampled_lifetime"] == trained
    assert replay["num_env_steps_stored"] == replay["num_env_steps_added_lifetime"]
    assert replay["num_env_steps_evicted_lifetime"] == 0
    assert ours["learners"]["__all_modules__"]["num_env_steps_trained_throughput"] > 0
