# SPDX-License-Identifier: MIT
"""The schema refuses nonsense, all at once and with lines; what it takes reaches RLlib."""

import contextlib
import inspect
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_per.experiments.environment_check import check_environment
from rllib_per.experiments.experiment import ExperimentConfig, build_experiment, load_experiment
from rllib_per.experiments.sections import Environment
from rllib_per.experiments.yaml_source import MAX_BYTES, ConfigError, parse_yaml
from rllib_per.settings.learners import LearnerSettings
from rllib_per.settings.replay import (
    REPLAY_NAMES,
    Prioritized,
    Sharded,
    replay_buffer_config,
    replay_of,
)
from rllib_per.settings.runners import EnvRunners
from rllib_per.settings.section import as_dict, names_of
from rllib_per.settings.training import Training

ROOT = Path(__file__).parents[2]
SOUND = "environment: {env: CartPole-v1}\nstop: {env_steps: 1000}\n"


def read(text, *overrides, **options):
    source = parse_yaml(text, "x.yaml")
    for assignment in overrides:
        source.override(assignment)
    return build_experiment(source, **options)


def problems(text, *overrides, **options):
    with pytest.raises(ConfigError) as caught:
        read(text, *overrides, **options)
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_is_told_at_once_with_its_line():
    text = (
        "environment: {env: CartPole-v1}\n"
        "stop: {env_steps: 1000}\n"
        "training:\n"
        "  gamma: 7\n"
        "  lr: fast\n"
        "  n_step: 0\n"
        "  double_q: 1\n"
        "replay:\n"
        "  alhpa: 0.5\n"
        "  capacity: 1.5\n"
        "alpha: 0.5\n"
    )
    found = problems(text)
    assert sorted(problem.split(": ")[0] for problem in found) == sorted(
        f"x.yaml:{line}" for line in (4, 5, 6, 7, 9, 10, 11)
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("replay: {alhpa: 0.5}", "replay.alhpa: unknown key; did you mean replay.alpha?"),
        ("alpha: 0.5", "alpha: unknown key; did you mean replay.alpha?"),
        ("training: {gamma: 7}", "training.gamma: must be less than or equal to 1: got 7"),
        ("training: {lr: fast}", "a schedule must be a number"),
        ("training: {n_step: [3, 1, 2]}", "training.n_step: must be"),
        ("replay: {capacity: 10}", "at least the batch of all learners"),
        ("seed: -1", "seed: must be greater than or equal to 0: got -1"),
        ("learners: {num_learners: -1}", "greater than or equal to 0"),
        ("training: {replay_ratio: 4, training_intensity: 4}", "give one of them"),
        ("training: {target_network_update_freq: 0}", "greater than or equal to 1"),
        ("replay: {beta: .nan}", "a schedule must be a number"),
        ("training: {gamma: true}", "must be a valid number"),
        ("training: {train_batch_size_per_learner: true}", "must be a valid integer"),
    ],
)
def test_a_problem_says_what_is_required_and_what_came(wrong, message):
    (problem,) = problems(SOUND + wrong)
    assert problem.startswith("x.yaml:3: ")
    assert message in problem


def test_a_key_given_twice_is_refused_where_it_is_repeated():
    assert problems(SOUND + "replay:\n  alpha: 0.5\n  alpha: 0.6") == [
        "x.yaml:5: alpha is given twice"
    ]


def test_a_missing_section_is_named():
    (environment,) = problems("stop: {env_steps: 1}")
    assert environment.startswith("x.yaml: environment: is required, with keys of env, env_config")
    (stop,) = problems("environment: {env: CartPole-v1}")
    assert stop == (
        "x.yaml: stop: is required, with keys of env_steps, updates, time_s, target_return"
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "PongNoFrameskip-v4",
            "It is ale_py:PongNoFrameskip-v4; Atari by the usual protocol is rllib_per/Atari-v1 "
            "with env_config {game: Pong}.",
        ),
        (
            "Pong-v0",
            "It is ale_py:Pong-v0; Atari by the usual protocol is rllib_per/Atari-v1 with ",
        ),
        (
            "NowhereNoFrameskip-v4",
            "One of your own is named by its module too, as module:Name-v0, ",
        ),
        ("Nowhere-v0", "One of your own is named by its module too, as "),
    ],
)
def test_a_name_that_is_not_registered_is_answered_with_what_to_name(name, advice, monkeypatch):
    # ale-py registers the old names too, once it is imported: as if it were not yet.
    pytest.importorskip("ale_py")
    known, spec = gym.registry.get(name), gym.spec
    game = name.partition("-")[0]
    others = {key: value for key, value in gym.registry.items() if value.name != game}
    monkeypatch.setattr(gym.envs.registration, "registry", others)
    monkeypatch.setattr(gym, "spec", lambda asked: known or spec(asked))
    experiment = read(SOUND, f"environment.env={name}")
    with pytest.raises(ConfigError, match=f"environment.env = {name}: ") as caught:
        check_environment(experiment)
    assert f" {advice}" in str(caught.value)


def test_a_run_without_end_is_refused():
    (problem,) = problems("environment: {env: CartPole-v1}\nstop: {target_return: 475}")
    assert "at least one of env_steps, updates and time_s" in problem


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        ("{type: rllib_priortized}", "did you mean 'rllib_prioritized'?: got 'rllib_priortized'"),
        ("{type: 5}", "must be a valid string: got 5"),
        (
            "{type: rllib_uniform, priority: huber}",
            "priority can't be set with type: rllib_uniform, which has capacity, alpha, beta",
        ),
        ("{type: rllib_uniform, num_shards: 2}", "only with type: sharded"),
        ("{options: {newest: 5}}", "options can't be set with type: prioritized"),
    ],
)
def test_a_replay_buffer_is_named_rightly_and_given_only_what_it_takes(replay, message):
    (problem,) = problems(SOUND + f"replay: {replay}")
    assert message in problem


def test_a_replay_buffer_of_ones_own_needs_trust_and_gets_its_options():
    path = "tests.support.own_buffer.NewestBuffer"
    text = SOUND + f"replay: {{type: {path}, capacity: 5000, options: {{newest: 5}}}}"
    (problem,) = problems(text)
    assert problem.startswith("x.yaml:3: replay.type: ")
    assert "--allow-custom-classes" in problem
    assert replay_buffer_config(read(text, allow_custom_classes=True).replay) == {
        "type": path,
        "capacity": 5000,
        "beta": 0.4,
        "newest": 5,
    }


def test_an_objective_is_a_name_or_a_section_with_keywords():
    path = "tests.support.objectives.OtherPriority"
    for written, expected in (
        ("expected", {"type": "expected"}),
        (f"{{type: {path}, offset: 2.0}}", {"type": path, "offset": 2.0}),
    ):
        text = f"{SOUND}training: {{objective: {written}}}"
        experiment = read(text, allow_custom_classes=True)
        assert as_dict(experiment.training)["objective"] == expected
        assert experiment.algorithm_config().objective == expected
    (problem,) = problems(SOUND + "training: {objective: expectd}")
    assert problem.startswith("x.yaml:3: training.objective")
    assert "did you mean 'expected'?: got 'expectd'" in problem


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("{num_atoms: 51, v_min: 3, v_max: 3}", "`v_min` must be less than `v_max`: got 3 and 3"),
        ("{v_max: 100}", "`v_max` belongs to a distribution on atoms"),
        ("{priority: kl}", "`priority` = 'kl' needs a distribution on atoms"),
        ("{num_atoms: 51, td_error_loss_fn: mse}", "`td_error_loss_fn` = 'mse' has no effect"),
        ("{num_atoms: 51, objective: own.Kind}", "`num_atoms` and `objective` each say what"),
        ("{num_atoms: 51, v_min: .inf}", "v_min: must be a finite number: got inf"),
        ("{distribution: quantile, num_atoms: 51}", "`num_atoms` and `distribution` each say"),
        ("{distribution: quantile, td_error_loss_fn: mse}", "has no effect on a distribution"),
        ("{distribution: quantile, priority: kl}", "`priority` = 'kl' needs a distribution on"),
        ("{distribution: quantil}", "training.distribution: `type` must be one of quantile"),
        (
            "{distribution: {type: quantile, num_quantils: 4}}",
            "training.distribution.num_quantils: unknown key; did you mean "
            "training.distribution.num_quantiles?",
        ),
        (
            "{distribution: {type: quantile, num_taus: 8}}",
            "training.distribution.num_taus: unknown key; another `type` than this one has it",
        ),
        (
            "{distribution: {type: quantile, num_quantiles: 0}}",
            "training.distribution.num_quantiles: must be greater than or equal to 1: got 0",
        ),
        ("{redo: {interval: 0}}", "training.redo.interval: must be greater than or equal to 1"),
        ("{munchausen: {clip: 1}}", "training.munchausen.clip: must be less than or equal to 0"),
        ("{munchausen: {alfa: 1}}", "training.munchausen.alfa: unknown key; did you mean"),
        ("{munchausen: {}, num_atoms: 51}", "`munchausen` belongs to Q-values and quantiles"),
        ("{munchausen: {}, objective: own.Kind}", "can't be had with `objective`"),
        ("{priority: entropy}", "must be 'td_error', 'kl' or 'quantile_td"),
    ],
)
def test_keys_of_what_is_learned_that_contradict_each_other_are_refused(training, message):
    (problem,) = problems(SOUND + f"training: {training}", allow_custom_classes=True)
    assert message in problem


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.v_min=3", "`v_min` belongs to a distribution on atoms: leave it out, or set"),
        ("training.sigma0=0.7", "sigma0 has no effect without noisy"),
        ("training.objective=categorical", "`objective` = 'categorical' has a key of its own"),
        ("training.training_intensity=2", "replay_ratio and training_intensity are the same"),
        ("replay.num_shards=2", "num_shards can be set only with type: sharded"),
        ("replay.priority=td_error", "must be 'absolute', 'huber' or 'clipped': got 'td_error'"),
    ],
)
def test_keys_that_do_not_go_together_are_told_where_they_were_set(override, message):
    text = SOUND + "training: {gamma: 0.9, replay_ratio: 3}\nreplay: {capacity: 5000}\n"
    (problem,) = problems(text, override)
    key = override.partition("=")[0]
    assert problem.startswith(f"--set {override}: {key}: {message}")
    assert "gamma" not in problem  # Nor all the rest of the section.
    assert "capacity" not in problem


def test_bounds_of_atoms_are_told_where_one_was_set():
    (problem,) = problems(SOUND, "training.num_atoms=51", "training.v_max=-20")
    assert problem.startswith("--set training.v_max=-20: training.v_max: `v_min` must be less")


def test_a_value_for_the_key_of_the_same_name_is_sent_there():
    (problem,) = problems(SOUND, "replay.priority=td_error")
    assert problem.endswith("; training.priority takes it")
    (problem,) = problems(SOUND, "training.priority=huber")
    assert problem.endswith("; replay.priority takes it")
    (problem,) = problems(SOUND, "training.priority=entropy")
    assert "takes it" not in problem


@pytest.mark.parametrize(
    "section", ["stop", "training", "replay", "training.munchausen", "training.distribution"]
)
def test_a_section_that_is_none_must_be_a_mapping(section):
    (problem,) = problems(SOUND, f"{section}=3")
    assert problem == f"--set {section}=3: {section}: must be a mapping of keys: got 3"


def test_a_distribution_is_a_type_or_a_section_and_keeps_its_defaults():
    for written in ("quantile", "{type: quantile}", "{type: quantile, kappa: 1}"):
        experiment = read(SOUND + f"training: {{distribution: {written}}}")
        expected = {"type": "quantile", "num_quantiles": 200, "kappa": 1.0}
        assert as_dict(experiment.training)["distribution"] == expected
        assert experiment.algorithm_config().distribution == expected
    assert read(SOUND).training.distribution is None


@pytest.mark.parametrize(
    ("training", "remedy"),
    [
        ("{num_atoms: 51}", "training.priority=td_error"),
        (
            "{distribution: implicit_quantile, priority: quantile_td_errors}",
            "training.priority=td_error",
        ),
        ("{munchausen: {}}", "training.munchausen=null"),
    ],
)
def test_priorities_of_another_kind_than_those_of_new_transitions_are_refused(training, remedy):
    text = SOUND + f"replay: {{initial_priority: td_error}}\ntraining: {training}"
    (problem,) = problems(text)
    assert problem.startswith("x.yaml:3: replay.initial_priority: must be 'max'")
    assert read(text, remedy).replay.initial_priority == "td_error"


def test_rllibs_buffers_get_their_own_options_only():
    settings = replay_buffer_config(read(SOUND, "replay.type=rllib_prioritized").replay)
    assert settings == {"type": "rllib_prioritized", "capacity": 50_000, "alpha": 0.6, "beta": 0.4}


def test_the_replay_types_of_yaml_are_those_of_the_algorithm():
    from rllib_per.buffers import types

    assert set(REPLAY_NAMES) < set(types.REPLAY_TYPES)
    assert not any("Episode" in name for name in REPLAY_NAMES)
    assert len(types.REPLAY_TYPES) == len(REPLAY_NAMES) + 2  # RLlib's own names


@pytest.mark.parametrize("text", ["1e-4", "'1e-4'", "1.0e-4", "0.0001"])
def test_every_notation_of_a_number_is_that_number(text):
    assert read(SOUND + f"training: {{adam_epsilon: {text}}}").training.adam_epsilon == 1e-4


def test_an_integer_may_be_written_in_scientific_notation():
    assert read(SOUND, "replay.capacity=1e6").replay.capacity == 1_000_000


def test_an_override_replaces_a_value_and_answers_for_it():
    assert read(SOUND, "replay.alpha=0.5").replay.alpha == 0.5
    assert problems(SOUND, "replay.alhpa=0.5", "alpha") == [
        "--set alpha: write it as section.key=value",
        "--set replay.alhpa=0.5: replay.alhpa: unknown key; did you mean replay.alpha?",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "environment:\n\tenv: CartPole-v1",
        "environment: !!python/object/apply:os.mkdir [made]",
        "environment: {env: [}",
        "- a list",
        "a: &a [*a]",
        "[" * 5000,
    ],
    ids=["tab", "python tag", "syntax", "no mapping", "alias to itself", "deep"],
)
def test_yaml_that_is_none_is_refused_and_nothing_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert problems(text)[0].startswith("x.yaml")
    assert list(tmp_path.iterdir()) == []


def test_aliases_cannot_multiply():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert "values" in problems(bomb)[0]


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(SOUND + "#" * MAX_BYTES)
    with pytest.raises(ConfigError, match="bytes"):
        load_experiment(path)


@given(st.text(max_size=200))
def test_any_text_is_an_experiment_or_a_config_error(text):
    with contextlib.suppress(ConfigError):
        build_experiment(parse_yaml(text, "x.yaml"))


OBJECTIVE = "tests.support.objectives.ManyOutputs"


@pytest.mark.parametrize(
    "wrong",
    [
        "environment: {env: os.system}",
        "environment: {env: 'antigravity:CartPole-v1'}",
        "environment: {env: CartPole-v1}\nmodel: {module_class: os.system}",
        f"environment: {{env: CartPole-v1}}\ntraining: {{objective: {OBJECTIVE}}}",
        f"environment: {{env: CartPole-v1}}\ntraining: {{objective: {{type: {OBJECTIVE}}}}}",
        "environment: {env: CartPole-v1}\ncallbacks: {callbacks_class: os.system}",
    ],
)
def test_naming_a_class_takes_a_flag(wrong):
    text = wrong + "\nstop: {env_steps: 1}"
    assert "--allow-custom-classes" in problems(text)[0]
    read(text, allow_custom_classes=True)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("{env: CartPol-v1}", "CartPole"),
        ("{env: CartPole-v1, env_config: {gravity: 3}}", "gravity"),
        ("{env: Pendulum-v1}", "Actions must be Discrete"),
        ("{env: rllib_per/MinAtar-v1, env_config: {game: breakot}}", "breakout"),
        ("{env: no.such.Env}", "No module named 'no'"),
        ("{env: tests.support.counting_env.NoEnv}", "NoEnv"),
    ],
)
def test_an_environment_that_cannot_be_learned_is_found_before_ray_starts(environment, message):
    text = f"environment: {environment}\nstop: {{env_steps: 1}}"
    experiment = read(text, allow_custom_classes=True)
    with pytest.raises(ConfigError, match=message):
        check_environment(experiment)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_environment_is_made_by_the_check_as_env_runners_make_it(mode):
    name = "tests.support.counting_env.CountingEnvOfWorker"
    text = f"environment: {{env: {name}, env_config: {{length: 5}}}}\nstop: {{env_steps: 1}}"
    override = f"env_runners.gym_env_vectorize_mode={mode}"
    check_environment(read(text, override, allow_custom_classes=True))


@pytest.mark.parametrize("section", [EnvRunners, Training, LearnerSettings])
def test_defaults_are_those_of_the_algorithm_config(section):
    from rllib_per.dqn.config import ApexDQNConfig

    config = ApexDQNConfig()
    defaults = as_dict(section())
    defaults.pop("num_torch_threads", None)  # Of the process that trains, not of the algorithm.
    for key, value in defaults.items():
        expected = getattr(config, key)
        if key == "epsilon":
            expected = [list(point) for point in expected]
        assert value == expected, key


def test_replay_settings_are_the_buffers_own_with_its_defaults():
    from rllib_per.replay import PrioritizedReplayBuffer

    parameters = inspect.signature(PrioritizedReplayBuffer).parameters
    settings = as_dict(Prioritized())
    for elsewhere in ("type", "beta", "capacity"):
        del settings[elsewhere]
    assert settings == {name: parameters[name].default for name in settings}


def test_settings_of_shards_count_only_there():
    assert set(names_of(Prioritized)) < set(names_of(Sharded))
    assert replay_of({"type": "sharded"}) == read(SOUND, "replay.type=sharded").replay == Sharded()
    with pytest.raises(ValueError, match="num_shards can't be set with type: prioritized"):
        replay_of({"type": "prioritized", "num_shards": 2})
    (problem,) = problems(SOUND + "replay: {num_shards: 2}")
    assert "num_shards can be set only with type: sharded" in problem


def test_a_key_of_another_type_is_taken_where_it_says_what_it_would_be_there():
    text = SOUND + "replay: {num_shards: 1, shard_num_cpus: 1.0, options: {}}"
    assert read(text).replay == Prioritized()


def test_what_only_python_can_name_is_refused_with_its_line():
    (problem,) = problems(SOUND + "replay: {initial_priority: given}")
    assert problem.startswith("x.yaml:3: replay.initial_priority: must be 'max' or 'td_error'")


def test_a_setting_is_taken_by_its_old_name_with_a_warning(caplog):
    old = SOUND + "replay: {type: sharded, max_picture_age_s: 0.5}\n"
    assert read(old).replay.max_mass_staleness_s == 0.5
    assert "max_picture_age_s is called max_mass_staleness_s now" in caplog.text
    both = read(old, "replay.max_mass_staleness_s=0.25")
    assert both.replay.max_mass_staleness_s == 0.25
    assert "max_picture_age_s: must be" in problems(old.replace("0.5", "-1"))[0]


def test_every_setting_reaches_the_algorithm_config():
    config = read(
        SOUND,
        "environment.env_config={max_episode_steps: 200}",
        "environment.clip_rewards=1.0",
        "env_runners.num_envs_per_env_runner=8",
        "training={lr: 1e-3, n_step: [1, 3], replay_ratio: 8}",
        "training.optimizer={type: rmsprop, eps: 0.1}",
        "replay={capacity: 2000, alpha: 0.5, beta: [[0, 0.4], [100, 1.0]]}",
        "model={encoder_hiddens: [64], hiddens: []}",
        "learners.mixed_precision=true",
        "seed=3",
    ).algorithm_config()
    config.validate()
    assert config.env == "CartPole-v1"
    assert config.env_config == {"max_episode_steps": 200}
    assert config.get_reward_clip() == 1.0
    assert config.num_envs_per_env_runner == 8
    assert config.lr == 1e-3
    assert config.n_step == [1, 3]
    assert config.get_replay_ratio() == 8
    assert config.optimizer == {"type": "rmsprop", "eps": 0.1}
    assert config.replay_buffer_config["alpha"] == 0.5
    assert config.replay_buffer_config["beta"] == [[0, 0.4], [100, 1.0]]
    assert config.model_config["encoder_hiddens"] == [64]
    assert config.model_config["hiddens"] == []
    assert config.mixed_precision
    assert config.seed == 3


def test_an_experiment_cannot_be_changed():
    experiment = read(SOUND)
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 1


def test_reading_an_experiment_imports_neither_ray_nor_torch():
    program = (
        "import sys; from rllib_per.cli import main;"
        "from rllib_per.experiments.experiment import *;"
        "load_experiment(Path('configs/cartpole.yaml'));"
        "sys.exit(bool({'ray', 'torch', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_every_setting_is_documented_in_the_schema():
    schema = ExperimentConfig.model_json_schema()
    assert set(schema["properties"]) >= {"environment", "training", "replay", "stop"}


@pytest.mark.parametrize(
    ("settings", "plays"),
    [
        ((), False),
        (("stop.target_return=475",), True),
        (("evaluation.interval_env_steps=1000",), True),
        (("evaluation.final=true",), True),
        (("evaluation.interval_env_steps=1000", "evaluation.final=false"), False),
    ],
)
def test_final_episodes_are_played_where_something_asks_for_them(settings, plays, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("environment: {env: CartPole-v1}\nstop: {env_steps: 1}\n")
    assert load_experiment(path, settings).plays_at_the_end is plays
    with pytest.raises(ConfigError, match=r"evaluation.final: must be auto or true with"):
        load_experiment(path, ["stop.target_return=475", "evaluation.final=false"])


@pytest.mark.parametrize(
    ("environment", "game"),
    [
        ({"env": "CartPole-v1"}, "CartPole-v1"),
        ({"env": "rllib_per/Atari-v1", "env_config": {"game": "Pong"}}, "Pong"),
        ({"env": "rllib_per.envs:rllib_per/ValueProbe-v1"}, "ValueProbe-v1"),
        ({"env": "my_module.Maze"}, "Maze"),
        ({"env": "CartPole-v1", "env_config": {"game": 3}}, "CartPole-v1"),
        ({"env": "../../x"}, "x"),
        ({"env": "CartPole-v1", "env_config": {"game": "../up"}}, "_up"),
        ({"env": "a/.."}, "game"),
    ],
)
def test_what_is_played_has_a_name_that_leads_nowhere_else(environment, game):
    assert Environment(**environment).game == game
