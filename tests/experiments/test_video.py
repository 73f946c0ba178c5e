# SPDX-License-Identifier: MIT
"""`play` needs an environment that draws; of any other it says what is missing."""

from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import save_file

from rllib_per.cli import main
from rllib_per.experiments import video
from rllib_per.experiments.evaluation import EvaluationStoppedError, GreedyPolicy
from rllib_per.experiments.experiment import build_experiment, load_experiment
from rllib_per.experiments.greedy_play import GreedyPlay
from rllib_per.experiments.training import TrainingRun
from rllib_per.experiments.video import check_drawing
from rllib_per.experiments.yaml_source import parse_yaml
from rllib_per.learning.learner_actors import LearnersLostError
from rllib_per.replay import TrainingDivergedError

CONFIGS = Path(__file__).parents[2] / "configs"


class Undrawn(gym.Env):
    """Three steps; `picture` is what the classes below draw."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (Gymnasium's)
    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)
    picture = None

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == 3, False, {}


class Drawn(Undrawn):
    def render(self):
        if isinstance(self.picture, Exception):
            raise self.picture
        return self.picture


class WithoutRenderMode(Undrawn):
    def __init__(self):
        super().__init__()


PICTURES = {
    "nothing": (None, "it returned None"),
    "a list": ([[0]], "it returned [[0]]"),
    "grey": (np.zeros((32, 32), np.uint8), "it returned (32, 32) of uint8"),
    "with alpha": (np.zeros((32, 32, 4), np.uint8), "it returned (32, 32, 4) of uint8"),
    "of fractions": (np.zeros((32, 32, 3)), "it returned (32, 32, 3) of float64"),
    "a missing package": (ImportError("no pygame"), "it raised ImportError: no pygame"),
}


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Plays a game of an environment class."""
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))

    def play(env_class, name="game.mp4"):
        gym.envs.registration.register("Test/Drawing-v0", env_class, disable_env_checker=True)
        experiment = {"environment": {"env": "Test/Drawing-v0"}, "stop": {"env_steps": 1}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(experiment))
        state = GreedyPolicy(load_experiment(tmp_path / "config.yaml"))._module.state_dict()
        weights = {name: np.ascontiguousarray(value.numpy()) for name, value in state.items()}
        save_file(weights, tmp_path / "policy.safetensors")
        video = str(tmp_path / name)
        return CliRunner().invoke(main, ["play", str(tmp_path), "--video", video])

    return play


def expect_one_line(done, *texts):
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert all(text in line for text in ("error: ", "rgb_array", *texts))


def test_an_environment_without_render_is_one_line(play):
    expect_one_line(play(Undrawn), "Undrawn.render() must return an array (height, width, 3)")


def test_the_environment_that_draws_nothing_is_named_whatever_is_around_it(monkeypatch):
    class Masked(Undrawn):
        observation_space = gym.spaces.Dict(
            observation=Undrawn.observation_space, action_mask=gym.spaces.MultiBinary(2)
        )

        def reset(self, *, seed=None, options=None):
            obs, infos = super().reset(seed=seed)
            return {"observation": obs, "action_mask": np.ones(2, np.int8)}, infos

    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.envs.registration.register("Test/Drawing-v0", Masked, disable_env_checker=True)
    source = parse_yaml("environment: {env: Test/Drawing-v0}\nstop: {env_steps: 1}\n", "x.yaml")
    with pytest.raises(RuntimeError, match=r"in pictures: Masked\.render\(\) must return"):
        check_drawing(GreedyPolicy(build_experiment(source)))


def test_an_environment_without_render_mode_is_one_line(play):
    expect_one_line(play(WithoutRenderMode), "render_mode")


@pytest.mark.parametrize(("picture", "text"), PICTURES.values(), ids=PICTURES)
def test_what_is_no_picture_is_named(picture, text, play, monkeypatch):
    monkeypatch.setattr(Drawn, "picture", picture)
    expect_one_line(play(Drawn), "Drawn.render() must return an array", text)


@pytest.mark.ray
def test_training_does_not_begin_where_a_game_could_not_be_recorded_later(tmp_path, monkeypatch):
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.envs.registration.register("Test/Drawing-v0", Undrawn, disable_env_checker=True)
    path = tmp_path / "own.yaml"
    experiment = {"environment": {"env": "Test/Drawing-v0"}, "stop": {"env_steps": 1}}
    path.write_text(yaml.safe_dump({**experiment, "evaluation": {"video_interval_env_steps": 9}}))
    done = CliRunner().invoke(main, ["train", str(path), "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 2, done.output
    assert "Undrawn.render() must return an array" in done.output
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "error", [EvaluationStoppedError("stopped"), RuntimeError("it draws no more"), OSError("full")]
)
def test_of_a_game_that_cannot_be_recorded_nothing_is_left(error, tmp_path, monkeypatch):
    def fail(policy, path, *, should_stop, **_):
        assert not should_stop()
        path.write_bytes(b"half a video")
        raise error

    monkeypatch.setattr(video, "record_games", fail)
    monkeypatch.setattr(GreedyPlay, "_bring_up_to_date", lambda play: None)
    progress = SimpleNamespace(env_steps=0)
    wish = ["evaluation.video_interval_env_steps=9"]
    experiment = load_experiment(CONFIGS / "cartpole.yaml", wish)
    play = GreedyPlay(experiment, SimpleNamespace(progress=progress), None)
    assert play.record_game_if_due(tmp_path) is None
    progress.env_steps = 9
    if isinstance(error, EvaluationStoppedError):
        assert play.record_game_if_due(tmp_path) is None
    else:
        with pytest.raises(type(error), match=str(error)):
            play.record_game_if_due(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (RuntimeError("it draws no more"), True),
        (OSError("full"), True),
        (TrainingDivergedError("NaN"), False),
        (LearnersLostError("gone"), False),
    ],
)
def test_training_goes_on_without_a_game_and_not_without_weights(error, goes_on):
    def fail(folder):
        raise error

    told = []
    run = TrainingRun.__new__(TrainingRun)
    run._greedy_play = SimpleNamespace(record_game_if_due=fail)
    run._run = SimpleNamespace(videos=None)
    run._display = SimpleNamespace(warn=told.append)
    if goes_on:
        run._write_game_if_due()
        assert told == [f"a game could not be recorded: {error}; training goes on"]
    else:
        with pytest.raises(type(error)):
            run._write_game_if_due()


def test_an_environment_that_draws_is_played(play, monkeypatch, tmp_path):
    monkeypatch.setattr(Drawn, "picture", np.zeros((32, 32, 3), np.uint8))
    done = play(Drawn)
    assert done.exit_code == 0, done.output
    assert "returns 3" in done.output
    assert (tmp_path / "game.mp4").stat().st_size > 0


def test_a_game_can_be_a_gif_that_moves(play, monkeypatch, tmp_path):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, :16] = 255
    monkeypatch.setattr(Drawn, "picture", picture)
    done = play(Drawn, "game.gif")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "game.gif") as game:
        assert (game.format, game.size) == ("GIF", (32, 32))
        assert game.n_frames > 1
    assert not list(tmp_path.glob(".*.mp4"))


def test_a_video_of_another_kind_is_refused_before_anything_is_played(play, tmp_path):
    done = play(Drawn, "game.avi")
    assert done.exit_code == 2
    assert "must end in .mp4 or .gif: got" in done.output
