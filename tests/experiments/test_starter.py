# SPDX-License-Identifier: MIT
"""What there is to train without a file of one's own: shipped names, and any environment's id."""

import subprocess
import sys
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from rllib_per.cli import main
from rllib_per.experiments.environment_check import check_algorithm, check_environment
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.shipped import shipped_file, shipped_names, title_of
from rllib_per.experiments.starter import load_starter, starter
from rllib_per.experiments.yaml_source import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
LIMITS = {"Acrobot-v1": None, "ALE/Pong-v5": None, "CliffWalking-v1": 1000}


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_every_config_but_those_for_clusters_has_a_name_and_a_title():
    files = [path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "cluster"]
    names = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in files]
    assert sorted(shipped_names()) == sorted(names)
    for name in names:
        assert shipped_file(name).read_text() == (CONFIGS / f"{name}.yaml").read_text()
        assert 5 < len(title_of(name)) < 90, title_of(name)


def test_list_shows_every_name_once():
    lines = call("list").output.splitlines()
    assert [line.split()[0] for line in lines] == shipped_names()
    assert "CartPole-v1" in lines[0]


def test_a_shipped_name_stands_for_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = call("config", "cartpole")
    assert named.exit_code == 0
    assert named.output == call("config", CONFIGS / "cartpole.yaml").output


def test_a_file_goes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cartpole").write_text("environment: {env: MyOwn-v0}\nstop: {env_steps: 1}\n")
    assert "MyOwn-v0" in call("config", "cartpole").output


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("cartpol", "cartpole"), ("breakout", "atari/breakout"), ("configs/pong.yaml", "atari/pong")],
)
def test_a_name_that_is_none_is_refused_with_what_was_meant(wrong, meant):
    done = call("config", wrong)
    assert done.exit_code == 2
    assert f"did you mean {meant}" in done.output
    assert "rllib-per list" in done.output


@pytest.mark.parametrize(
    ("env", "overrides"),
    [("Acrobot-v1", ()), ("ALE/Pong-v5", ()),
     ("rllib_per/MinAtar-v1", ("environment.env_config.game=breakout",))],
)  # fmt: skip
def test_an_environment_gets_settings_that_suit_it(env, overrides):
    experiment = load_starter(env, overrides)
    check_environment(experiment)
    check_algorithm(experiment)
    assert experiment.replay.capacity >= 50_000


def test_what_is_known_of_an_environment_decides():
    vectors, atari = load_starter("Acrobot-v1"), load_starter("ALE/Pong-v5")
    assert vectors.stop.target_return == -100  # Gymnasium's own threshold.
    assert vectors.model.encoder_hiddens == [128]
    assert atari.environment.env == "rllib_per/Atari-v1"
    assert atari.environment.env_config == {"game": "Pong"}
    assert atari.environment.clip_rewards is True
    assert atari.stop.target_return is None
    boards = load_starter("rllib_per/MinAtar-v1", ["environment.env_config.game=freeway"])
    assert boards.model.conv_filters == [[16, 3, 1]]


def pictures(*shape):
    return gym.spaces.Box(0, 255, shape, np.uint8)


SMALL = [[16, 3, 1]]
# Observations, and the convolutions that suit them: the usual ones, small ones, or none.
OBSERVATIONS = {
    "screen": (pictures(84, 84), None),
    "small screen": (pictures(20, 20), SMALL),
    "stack": (pictures(4, 20, 20, 3), SMALL),
    "map": (pictures(7, 7, 3), SMALL),
    "numbers in three axes": (pictures(2, 2, 3), "none"),
    "categories": (gym.spaces.MultiDiscrete(np.full((5, 5, 3), 4)), "none"),
    "screen and map": (gym.spaces.Dict(a=pictures(84, 84, 3), b=pictures(7, 7, 3)), None),
    "small screen and vectors": (
        gym.spaces.Dict(a=pictures(20, 20, 3), b=pictures(4, 2, 3)),
        SMALL,
    ),
    "large": (pictures(480, 640, 3), None),
}


class Observes(gym.Env):
    action_space = gym.spaces.Discrete(2)

    def __init__(self, name):
        self.observation_space, _ = OBSERVATIONS[name]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_the_kinds_of_observations_decide_on_the_network(name):
    env = "tests.experiments.test_starter.Observes"
    config = f"environment.env_config={{name: {name}}}"
    experiment = load_starter(env, [config], allow_custom_classes=True)
    check_environment(experiment)
    check_algorithm(experiment)
    convolutions = OBSERVATIONS[name][1]
    is_image = convolutions != "none"
    assert (experiment.model.encoder_hiddens is None) == is_image
    assert experiment.model.conv_filters == (convolutions if is_image else None)


def test_greedy_episodes_are_cut_where_the_environment_has_no_time_limit():
    longest = {env: load_starter(env).evaluation.max_env_steps_per_episode for env in LIMITS}
    assert longest == LIMITS
    limited = load_starter("CliffWalking-v1", ["environment.env_config.max_episode_steps=50"])
    assert limited.evaluation.max_env_steps_per_episode is None
    wrapped = "environment.wrappers=[{TimeLimit: {max_episode_steps: 50}}]"
    assert load_starter("CliffWalking-v1", [wrapped]).evaluation.max_env_steps_per_episode is None
    asked = load_starter("CliffWalking-v1", ["evaluation.max_env_steps_per_episode=7"])
    assert asked.evaluation.max_env_steps_per_episode == 7


def test_init_writes_what_train_env_trains(tmp_path):
    path = tmp_path / "new" / "my.yaml"
    done = call("init", path, "--env", "Acrobot-v1")
    assert done.exit_code == 0, done.output
    assert f"rllib-per train {path}" in done.output
    text = path.read_text()
    assert text == starter("Acrobot-v1")
    assert text.startswith("# Acrobot-v1: ")
    assert all(len(line) < 200 for line in text.splitlines())
    assert load_experiment(path) == load_starter("Acrobot-v1")
    assert yaml.safe_load(text)["environment"] == {"env": "Acrobot-v1"}


def test_init_leaves_a_file_alone_and_writes_none_of_what_cannot_be_learned(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("mine")
    assert call("init", path, "--env", "Acrobot-v1").exit_code == 2
    assert path.read_text() == "mine"
    other = tmp_path / "other.yaml"
    refused = call("init", other, "--env", "Acrobat-v1")
    assert refused.exit_code == 2
    assert "Acrobot" in refused.output
    assert not other.exists()


@pytest.mark.parametrize("change", ["training.lr=0.1", "replay.alphaa=3", "seed=3"])
def test_init_refuses_what_would_not_be_in_the_file(change, tmp_path):
    done = call("init", tmp_path / "my.yaml", "--env", "Acrobot-v1", "--set", change)
    assert done.exit_code == 2
    assert f"got --set {change}" in done.output
    assert list(tmp_path.iterdir()) == []


def test_overrides_of_a_starter_are_those_of_a_file():
    experiment = load_starter("Acrobot-v1", ["training.lr=1e-3"], seed=4, smoke=True)
    assert (experiment.training.lr, experiment.seed) == (1e-3, 4)
    assert experiment.stop.time_s == 15
    with pytest.raises(ConfigError, match=r"--set training.lrr=1: .*training.lr\?"):
        load_starter("Acrobot-v1", ["training.lrr=1"])


def test_train_takes_one_of_a_file_an_environment_and_a_run(tmp_path):
    done = call("train", "cartpole", "--env", "Acrobot-v1", "--runs", tmp_path)
    assert done.exit_code == 2
    assert "give one of" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_class_is_imported_only_where_that_is_allowed():
    with pytest.raises(ConfigError, match="--allow-custom-classes"):
        load_starter("some_module.Maze")


@pytest.mark.slow
def test_a_wheel_has_the_configs_and_its_commands_run_elsewhere(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path), "."],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import rllib_per; print(rllib_per.__file__)\n"
        "from rllib_per.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "config", "atari/pong"],
        cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(site))
    assert "game: Pong" in done.stdout


@pytest.mark.parametrize(
    ("env", "env_steps", "learning_starts"),
    [("Acrobot-v1", 100_000, 1000), ("ALE/Pong-v5", 1_000_000, 10_000)],
)
def test_a_first_experiment_is_as_long_as_the_readme_says(env, env_steps, learning_starts):
    experiment = load_starter(env)
    assert experiment.stop.env_steps == experiment.replay.beta["steps"] == env_steps
    assert experiment.replay.capacity == 100_000
    assert experiment.training.num_steps_sampled_before_learning_starts == learning_starts
    assert experiment.training.epsilon["steps"] == env_steps // 10
