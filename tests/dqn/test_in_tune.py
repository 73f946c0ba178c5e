# SPDX-License-Identifier: MIT
"""`ApexDQN` in Ray Tune without our command line, on exactly the CPUs that it declares."""

import pytest
from ray import tune

import rllib_per  # noqa: F401  (so that Tune knows "ApexDQN")
from rllib_per import ApexDQN, ApexDQNConfig
from tests.support.numbered_env import NumberedEnv
from tests.support.tuner import fail_and_restore

NUM_CPUS = 2

# To find one algorithm by name Tune imports all of RLlib's, with what they warn of.
pytestmark = [
    pytest.mark.usefixtures("one_ray"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]


def config(alpha, **replay):
    return (
        ApexDQNConfig()
        .environment("CartPole-v1")
        .training(
            num_steps_sampled_before_learning_starts=100,
            replay_buffer_config={"capacity": 1000, "alpha": alpha, **replay},
            store_buffer_in_checkpoints=True,
        )
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .reporting(min_sample_timesteps_per_iteration=200)
    )


def fit(trainable, space, path, iterations=1, **tune_config):
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(**tune_config),
        run_config=tune.RunConfig(
            storage_path=str(path), stop={"training_iteration": iterations}, verbose=0
        ),
    )
    results = tuner.fit()
    assert not results.errors
    return results


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_runs_by_name_on_exactly_the_cpus_that_it_declares(tmp_path):
    space = config(tune.grid_search([0.2, 0.9]), type="sharded").to_dict()
    declared = ApexDQN.default_resource_request(config(0.2, type="sharded").to_dict())
    assert declared.required_resources["CPU"] == NUM_CPUS
    results = fit("ApexDQN", space, tmp_path)
    alphas = [result.metrics["replay_buffer"]["alpha"] for result in results]
    assert sorted(alphas) == [0.2, 0.9]


@pytest.mark.ray
@pytest.mark.slow
def test_pbt_hands_processes_over_and_perturbed_alphas_arrive(tmp_path):
    """The worse half goes on from the better half's checkpoints; α is what its config says."""
    pbt = tune.schedulers.PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations={"replay_buffer_config": {"alpha": tune.uniform(0.1, 0.9)}},
        quantile_fraction=0.5,
        synch=True,
    )
    results = fit(
        ApexDQN,
        config(tune.uniform(0.1, 0.9)),
        tmp_path,
        iterations=4,
        num_samples=2,
        scheduler=pbt,
        metric="num_env_steps_sampled_lifetime",
        mode="max",
        reuse_actors=True,
    )
    assert pbt._num_perturbations > 0
    for result in results:
        held = result.metrics["replay_buffer"]
        assert held["alpha"] == pytest.approx(result.config["replay_buffer_config"]["alpha"])
        assert held["num_transitions"] > 600


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_failed_goes_on_from_its_checkpoint_with_its_buffer(tmp_path):
    failing = {"fails_until": str(tmp_path / "failed"), "fails_at": 500}
    trial = config(0.4).environment(NumberedEnv, env_config=failing)
    result = fail_and_restore(ApexDQN, trial, tmp_path, iterations=4)
    assert result.metrics["iterations_since_restore"] == 2  # Two were whole before it failed.
    steps = result.metrics["num_env_steps_sampled_lifetime"]
    assert steps >= 800
    # The buffer came back: it holds more than what was collected since.
    assert result.metrics["replay_buffer"]["num_transitions"] > steps / 2 + 100
