# SPDX-License-Identifier: MIT
import pytest
from ray.rllib.algorithms import algorithm_config
from ray.rllib.algorithms.callbacks import DefaultCallbacks
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.util import debug

from rllib_per import ApexDQNConfig
from rllib_per.dqn.training_clock import Schedules
from rllib_per.runners.env_runner import ApexEnvRunner
from tests.support.wrong_env import TakesKeywords


def config(**training):
    return ApexDQNConfig().environment("CartPole-v1").training(**training)


def test_the_defaults_are_valid():
    config().validate()


@pytest.mark.parametrize(("config_class", "times"), [(ApexDQNConfig, 0), (DQNConfig, 1)])
def test_nobody_is_advised_to_take_the_old_api_stack(config_class, times, monkeypatch):
    said = []
    monkeypatch.setattr(algorithm_config.logger, "warning", said.append)
    monkeypatch.setattr(debug, "_logged", set())
    config_class().environment("CartPole-v1").validate()
    assert len([line for line in said if "new API stack" in line]) == times


def test_a_setting_of_replay_is_taken_by_its_old_name_with_a_warning(caplog):
    settings = {"type": "sharded", "capacity": 99, "max_picture_age_s": 0.5}
    old = config(replay_buffer_config=settings)
    old.validate()
    assert "max_picture_age_s is called max_mass_staleness_s now" in caplog.text
    assert "max_picture_age_s" not in old.replay_buffer_config
    assert old.settings().replay.max_mass_staleness_s == 0.5


def test_a_program_written_for_dqn_config_keeps_its_settings():
    def program(config_class):
        return (
            config_class()
            .environment("CartPole-v1")
            .training(
                lr=[[0, 1e-3], [10_000, 1e-4]],
                train_batch_size_per_learner=64,
                n_step=(2, 5),
                double_q=False,
                hiddens=[64],
                epsilon=[(0, 1.0), (5000, 0.02)],
                replay_buffer_config={
                    "type": "PrioritizedEpisodeReplayBuffer",
                    "capacity": 60_000,
                    "alpha": 0.5,
                    "beta": 0.5,
                },
            )
            .env_runners(num_env_runners=2, num_envs_per_env_runner=3)
            .evaluation(evaluation_interval=1)
        )

    theirs, ours = program(DQNConfig).to_dict(), program(ApexDQNConfig).to_dict()
    program(ApexDQNConfig).validate()
    set_by_the_program = (
        "lr", "_train_batch_size_per_learner", "n_step", "double_q", "hiddens", "epsilon",
        "replay_buffer_config", "num_env_runners", "num_envs_per_env_runner", "evaluation_interval",
    )  # fmt: skip
    for name in set_by_the_program:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"gamma": 7}, "`gamma` must be a number in [0, 1]: got 7"),
        ({"gamma": float("nan")}, "`gamma`"),
        (
            {"train_batch_size_per_learner": -1},
            "`train_batch_size_per_learner` must be an integer >= 1",
        ),
        ({"n_step": 0}, "`n_step`"),
        ({"n_step": (5, 2)}, "`n_step`"),
        ({"tau": 0.0}, "`tau`"),
        ({"td_error_loss_fn": "l1"}, "one of 'huber', 'mse'"),
        ({"target_network_update_freq": 0}, "`target_network_update_freq`"),
        ({"target_network_update_unit": "frames"}, "`target_network_update_unit`"),
        ({"lr": -1e-3}, "`lr`"),
        ({"epsilon": 2.0}, "`epsilon`"),
        ({"epsilon": {"type": "linaer"}}, "`epsilon`"),
        ({"noisy": 1.5}, "`noisy` must be one of True, False: got 1.5"),
        ({"noisy": True, "sigma0": -0.5}, "`sigma0` must be a number >= 0: got -0.5"),
        ({"sigma0": 0.4}, "`sigma0` = 0.4 has no effect without `noisy`"),
        ({"num_atoms": 0}, "`num_atoms` must be an integer >= 1: got 0"),
        ({"v_min": 0.0}, "`v_min` belongs to a distribution on atoms"),
        ({"num_atoms": 51, "v_min": 10}, "`v_min` must be less than `v_max`: got 10 and 10"),
        ({"num_atoms": 51, "v_min": "low"}, "`v_min` must be a finite number: got 'low'"),
        ({"priority": "kl"}, "needs a distribution on atoms"),
        ({"priority": "quantile_td_errors"}, "needs quantiles: set `distribution`"),
        ({"priority": "quantile_td_errors", "num_atoms": 51}, "needs quantiles"),
        (
            {
                "distribution": "quantile",
                "priority": "quantile_td_errors",
                "replay_buffer_config": {"initial_priority": "td_error"},
            },
            "`replay_buffer_config['initial_priority']` must be 'max', or `priority` 'td_error'",
        ),
        ({"num_atoms": 51, "td_error_loss_fn": "mse"}, "has no effect on a distribution"),
        (
            {"num_atoms": 51, "replay_buffer_config": {"initial_priority": "td_error"}},
            "`replay_buffer_config['initial_priority']` must be 'max', or `priority` 'td_error'",
        ),
        (
            {"munchausen": {}, "replay_buffer_config": {"initial_priority": "td_error"}},
            "`replay_buffer_config['initial_priority']` must be 'max' with `munchausen`",
        ),
        ({"distribution": "quantil"}, "`distribution`: `type` must be one of quantile"),
        (
            {"distribution": ["quantile"]},
            "`type` must be one of quantile, implicit_quantile: got [",
        ),
        ({"distribution": {"type": "quantile", "kapa": 1}}, "`distribution`: no key 'kapa'"),
        (
            {"distribution": {"type": "quantile", "num_quantiles": 0}},
            "`distribution`: num_quantiles must be an integer >= 1: got 0",
        ),
        (
            {"distribution": "quantile", "objective": dict, "num_atoms": 51},
            "must be a subclass of rllib_per.objectives.Objective",
        ),
        ({"distribution": "quantile", "num_atoms": 51}, "each say what is learned"),
        ({"objective": {}, "v_max": 100}, "`v_max` belongs to a distribution on atoms"),
        ({"munchausen": {"tau": 0}}, "`munchausen`: tau must be a number > 0: got 0"),
        ({"munchausen": {"taus": 1}}, "`munchausen`: no key 'taus'; it has alpha, tau"),
        ({"munchausen": True}, "`munchausen`: must have the keys alpha, tau, clip, policy: got"),
        ({"munchausen": {}, "num_atoms": 51}, "can't be had with `num_atoms`"),
        ({"redo": {"tau": 2}}, "`redo`: tau must be a number in [0, 1]: got 2"),
        ({"redo": {"period": 9}}, "`redo`: no key 'period'; it has interval, tau"),
        ({"burn_in_len": 4}, "`burn_in_len`"),
        ({"optimizer": {"type": "sgd"}}, "`optimizer`"),
        ({"objective": "categorical"}, "leave it out, and set `num_atoms`, 51 for example"),
        ({"objective": {"type": "quantile"}}, "and set `distribution` to {'type': 'quantile'}"),
        ({"objective": "expectd"}, "did you mean 'expected'?"),
        ({"replay_ratio": 8, "training_intensity": 8}, "the same setting"),
        (
            {"replay_buffer_config": {"type": "sharded", "capacity": 99, "prioritization": "rank"}},
            "a rank is one among all transitions",
        ),
        (
            {"replay_buffer_config": {"capacity": 0}},
            "['capacity']` must be an integer in [1, 2147483648]: got 0",
        ),
        (
            {"replay_buffer_config": {"capacity": 10}},
            "['capacity']` must be at least the batch of all learners, or a transition is drawn "
            "several times for each: got 10 and 32",
        ),
        ({"lr": {"type": "linear", "initial": 1e-3, "final": -1e-3, "steps": 10}}, "`lr` must lie"),
        ({"epsilon": [[0, 1.0], [10, 1.5], [20, 0.1]]}, "it goes from 0.1 to 1.5"),
        ({"replay_buffer_config": {"initial_priority": "given"}}, "an extra column `priority`"),
        ({"replay_buffer_config": {"alpha": 9}}, "['alpha']` must be a number in [0, 4]: got 9"),
        ({"replay_buffer_config": {"weight_normalization": "foo"}}, "'foo'"),
        (
            {"replay_buffer_config": {"type": "sharded", "shard_recovery": "checkpoint"}},
            "store_buffer_in_checkpoints=True",
        ),
        ({"replay_buffer_config": {"alhpa": 0.5}}, "did you mean 'alpha'?"),
        ({"replay_buffer_config": {"type": "Fast", "capacity": 5000}}, "'prioritized', 'uniform'"),
        ({"replay_buffer_config": {"beta": 2.0}}, "['beta']`"),
        (
            {"replay_buffer_config": {"beta": [[0, 0.4], [10, 1.2]]}},
            "['beta']` must lie in [0, 1.0]: it goes from 0.4 to 1.2",
        ),
    ],
)
def test_what_is_wrong_is_named(settings, complaint):
    with pytest.raises(ValueError, match="ApexDQNConfig") as error:
        config(**settings).validate()
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"batch_mode": "complete_episodes"}, "`batch_mode`"),
        ({"torch_skip_nan_gradients": True}, "`torch_skip_nan_gradients`"),
        ({"policies_to_train": []}, "`policies_to_train`"),
        ({"callbacks_on_episode_step": print, "per_env_epsilon": True}, "needs ApexEnvRunner"),
        ({"callbacks_on_episode_step": print, "env": TakesKeywords}, "RLlib's env runner calls"),
        (
            {
                "callbacks_on_episode_step": print,
                "replay_buffer_config": {
                    "type": "prioritized",
                    "capacity": 2000,
                    "initial_priority": "td_error",
                },
            },
            "the Q-values that ApexEnvRunner records",
        ),
    ],
)
def test_what_has_no_effect_here_is_refused(attributes, complaint):
    asked = config()
    for name, value in attributes.items():
        setattr(asked, name, value)
    with pytest.raises(ValueError, match=complaint):
        asked.validate()


def test_without_exploration_no_action_is_random():
    greedy = Schedules.of(config(epsilon=0.5).env_runners(explore=False).settings())
    assert greedy.epsilon(0) == 0.0
    assert Schedules.of(config(epsilon=0.5).settings()).epsilon(0) == 0.5


def test_learners_that_would_share_a_gpu_are_refused():
    shared = config().learners(num_learners=2, num_gpus_per_learner=0.5)
    with pytest.raises(ValueError, match="must be whole with more than one learner"):
        shared.validate()


def test_all_problems_are_reported_at_once():
    with pytest.raises(ValueError, match="ApexDQNConfig") as error:
        config(gamma=7, tau=-1, burn_in_len=4).validate()
    assert all(f"`{name}`" in str(error.value) for name in ("gamma", "tau", "burn_in_len"))


def test_a_misspelt_key_of_a_config_dict_is_refused():
    with pytest.raises(ValueError, match="'learnig_rate' is no setting"):
        ApexDQNConfig().update_from_dict({"learnig_rate": 1e-3})
    with pytest.raises(ValueError, match="did you mean 'gamma'"):
        ApexDQNConfig().update_from_dict({"gama": 0.9})


@pytest.mark.parametrize(
    ("method", "wrong", "meant"),
    [
        ("training", "replay_ration", r"did you mean training\(replay_ratio=\.\.\.\)\?"),
        ("env_runners", "num_env_runner", r"did you mean env_runners\(num_env_runners="),
        (
            "reporting",
            "min_time_per_iteration",
            r"did you mean reporting\(min_time_s_per_iteration=",
        ),
        ("training", "num_env_runners", r"give it as env_runners\(num_env_runners="),
        ("training", "alpha", r"give it as training\(replay_buffer_config=\{'alpha': \.\.\.\}\)"),
        ("training", "num_workers", r"did you mean env_runners\(num_env_runners="),
        ("framework", "zzzzzz", "it has .*torch_compile_learner"),
    ],
)
def test_a_keyword_that_a_method_has_not_is_refused_with_the_one_that_was_meant(
    method, wrong, meant
):
    with pytest.raises(TypeError, match=rf"{method}\(\) got .* argument '{wrong}'.*{meant}"):
        getattr(ApexDQNConfig(), method)(**{wrong: 2})


def test_methods_of_a_config_class_of_ones_own_may_take_more_keywords():
    class Own(ApexDQNConfig):
        def training(self, *, temperature=1.0, **kwargs):
            self.temperature = temperature
            return super().training(**kwargs)

    assert Own().training(temperature=2.0, gamma=0.9).temperature == 2.0
    with pytest.raises(TypeError, match=r"did you mean training\(temperature="):
        Own().training(temperture=2.0)


def test_a_config_survives_its_own_dict():
    first = config(replay_ratio=4.0, n_step=3).env_runners(frame_stack=4)
    second = ApexDQNConfig().update_from_dict(first.to_dict())
    assert second.replay_ratio == 4.0
    assert second.frame_stack == 4
    assert second.env_runner_cls is ApexEnvRunner


@pytest.mark.parametrize(
    ("runners", "envs", "rows", "ratio"),
    [(0, 1, 4, 8.0), (1, 1, 4, 8.0), (2, 4, 4, 1.0), (0, 16, "auto", 2.0)],
)
def test_the_natural_replay_ratio_is_rllibs_documented_one(runners, envs, rows, ratio):
    natural = config(train_batch_size_per_learner=32).env_runners(
        num_env_runners=runners, num_envs_per_env_runner=envs, rollout_fragment_length=rows
    )
    assert natural.get_replay_ratio() == ratio


def test_training_intensity_is_the_replay_ratio():
    assert config(training_intensity=6.0).get_replay_ratio() == 6.0


class StepCallbacks(DefaultCallbacks):
    def on_episode_step(self, **kwargs):
        """Sees every step."""


def test_our_runner_is_the_default():
    assert config().env_runner_cls is ApexEnvRunner


@pytest.mark.parametrize(
    "needing_episodes",
    [
        lambda c: c.env_runners(env_to_module_connector=lambda env, spaces, device: None),
        lambda c: c.callbacks(StepCallbacks),
        lambda c: c.callbacks(on_episode_step=lambda **kwargs: None),
    ],
)
def test_connectors_and_per_step_callbacks_take_rllibs_runner(needing_episodes):
    assert needing_episodes(config()).env_runner_cls is SingleAgentEnvRunner


def test_a_named_runner_class_is_kept():
    assert (
        config().env_runners(env_runner_cls=SingleAgentEnvRunner).env_runner_cls
        is SingleAgentEnvRunner
    )


@pytest.mark.parametrize(
    ("model_config", "complaint"),
    [
        ({"fcnet_hidens": [7]}, "no key 'fcnet_hidens'; did you mean 'fcnet_hiddens'?"),
        ({"network": "mlp", "conv_filters": [[16, 4, 2]]}, "no effect on the network 'mlp'"),
        ({"fcnet_bias_initializer": "zeros"}, "ends with '_'"),
        ({"fcnet_hiddens": [0]}, "must be integers >= 1"),
        ({"use_lstm": True}, "use_lstm"),
        ({"layer_norm": "yes"}, "model_config['layer_norm'] must be one of True, False: got 'yes'"),
        ({"network": "impala", "width": 0}, "['width'] must be an integer >= 1: got 0"),
        ({"network": "impala", "adaptive_pool": 1.5}, "an integer >= 1 or None: got 1.5"),
        ({"fcnet_activation": "rel"}, "['fcnet_activation'] must be one of 'relu', 'tanh'"),
        ({"std_init": -1}, "['std_init'] must be a number >= 0: got -1"),
        ({"head_fcnet_kernel_initializer": "dirac_"}, "cannot fill a tensor of the shape (2, 2)"),
        ({"conv_bias_initializer": "orthogonal_"}, "cannot fill a tensor of the shape (2,)"),
        ({"fcnet_kernel_initializer_kwargs": {"gain": 2}}, "has no effect without"),
    ],
)
def test_a_model_config_that_no_network_can_be_made_of_is_found_before_anything_starts(
    model_config, complaint
):
    with pytest.raises(ValueError, match="ApexDQNConfig") as error:
        config().rl_module(model_config=model_config).validate()
    assert complaint in str(error.value)


def test_a_config_comes_back_from_what_it_gave():
    """Of a built algorithm, or of `result["config"]`: with RLlib's own keys."""
    settings = config(n_step=(1, 3), tau=0.5).rl_module(model_config={"fcnet_hiddens": [5]})
    settings.env_runners(per_env_epsilon=True)
    settings.validate()
    settings.freeze()
    given = settings.to_dict()
    for again in (ApexDQNConfig.from_dict(given), ApexDQNConfig().update_from_dict(given)):
        again.validate()
        again.training(tau=0.25)
        assert {**again.to_dict(), "tau": 0.5} == given
