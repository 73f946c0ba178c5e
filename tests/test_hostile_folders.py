# SPDX-License-Identifier: MIT
"""A run folder that came from elsewhere ends in a result or in one line, whatever it holds."""

import importlib
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import ray
import yaml
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from rllib_per.cli import main
from rllib_per.experiments import ray_session
from rllib_per.experiments.evaluation import GreedyPolicy
from rllib_per.experiments.experiment import load_experiment

CONFIG = Path(__file__).parents[1] / "configs" / "cartpole.yaml"
TINY = {
    "environment": {"env": "CartPole-v1"},
    "model": {"hiddens": [8]},
    "evaluation": {"num_envs": 2},
    "stop": {"env_steps": 100},
}
HUGE = 40_000_000_000


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def expect_one_line(done, text):
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 2
    errors = done.stderr.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert text in errors[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.yaml"
    path.write_text(yaml.safe_dump(TINY))
    state = GreedyPolicy(load_experiment(path))._module.state_dict()
    return {name: np.ascontiguousarray(value.numpy()) for name, value in state.items()}


@pytest.fixture
def run(tmp_path, weights):
    """A run that can be evaluated."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    save_file(weights, folder / "policy.safetensors")
    (folder / "episodes.csv").write_text("env_steps,episode_return,episode_len\n10,1.0,10\n")
    (folder / "metrics.csv").write_text("env_steps,evaluation_return_mean\n10,\n")
    return folder


def with_settings(**sections):
    return lambda run: (run / "config.yaml").write_text(yaml.safe_dump(TINY | sections))


def with_file(name, content):
    def spoil(run):
        (run / name).unlink()
        (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def sparse(name):
    return lambda run: os.truncate(run / name, HUGE)


def fifo(name):
    def spoil(run):
        (run / name).unlink()
        os.mkfifo(run / name)

    return spoil


def link(name, target):
    def spoil(run):
        (run / name).unlink()
        (run / name).symlink_to(target)

    return spoil


def folder(name):
    def spoil(run):
        (run / name).unlink()
        (run / name).mkdir()

    return spoil


def tensors(header, data=b""):
    text = json.dumps(header).encode()
    return with_file("policy.safetensors", struct.pack("<Q", len(text)) + text + data)


def environment(env, **env_config):
    return with_settings(environment={"env": env, "env_config": env_config})


ENDLESS = {"dtype": "F32", "shape": [10**9, 10], "data_offsets": [0, 4 * 10**10]}
SHORT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ODD = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}


def as_large_as_its_header_says(run):
    tensors({"a": ENDLESS})(run)
    path = run / "policy.safetensors"
    os.truncate(path, path.stat().st_size + HUGE)


def odd_weights(run):
    """bfloat16, which NumPy knows once somebody has imported ml_dtypes, as ONNX does."""
    importlib.import_module("ml_dtypes")
    weights = load_file(run / "policy.safetensors")
    header, data = {}, b""
    for name, value in weights.items():
        ends = [len(data), len(data) + 2 * value.size]
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": ends}
        data += bytes(2 * value.size)
    tensors(header, data)(run)


TO_PLAY = {
    "sparse weights": (sparse("policy.safetensors"), "bytes at most: got 40,000,000,000"),
    "sparse weights as their header says": (
        as_large_as_its_header_says,
        "bytes at most: got 40,000,000,",
    ),
    "no tensors at all": (with_file("policy.safetensors", b""), "is damaged"),
    "a header that is longer than the file": (
        with_file("policy.safetensors", struct.pack("<Q", 2**62)),
        "is damaged",
    ),
    "a header that promises more than there is": (tensors({"a": ENDLESS}), "is damaged"),
    "other tensors": (tensors({"a": SHORT}, bytes(8)), "of another network"),
    "tensors of a type that NumPy lacks": (tensors({"a": ODD}, bytes(4)), "policy.safetensors"),
    "weights of a type that torch does not take": (odd_weights, "is damaged"),
    "weights that are a pipe": (fifo("policy.safetensors"), "does not exist"),
    "weights that are a device": (link("policy.safetensors", "/dev/zero"), "does not exist"),
    "weights that are a folder": (folder("policy.safetensors"), "does not exist"),
    "a network of another size": (
        with_settings(model={"hiddens": [9]}),
        "of another network",
    ),
    "a network that no memory holds": (
        with_settings(model={"hiddens": [10**8, 10**8]}),
        "cannot be played",
    ),
    "a setting that the environment has not": (
        environment("CartPole-v1", gravity_of_jupiter=1),
        "gravity_of_jupiter",
    ),
    "a setting of the wrong type": (
        environment("CartPole-v1", max_episode_steps="long"),
        "cannot be played",
    ),
    "a setting that makes another network": (
        environment("FrozenLake-v1", desc=["S" * 4000] * 10),
        "of another network",
    ),
    "an environment that does not exist": (environment("CartPol-v1"), "CartPol"),
    "an environment of one's own": (environment("os.system"), "--allow-custom-classes"),
    "a folder to import from": (with_settings(import_from="/tmp"), "--allow-custom-classes"),
    "another module's environment": (environment("evil:CartPole-v1"), "--allow-custom-classes"),
    "a configuration of megabytes": (
        with_file("config.yaml", "#" * 2_000_000),
        "at most 1,000,000 bytes are read",
    ),
    "a sparse configuration": (sparse("config.yaml"), "at most 1,000,000 bytes are read"),
    "a configuration that is a pipe": (fifo("config.yaml"), "is no run"),
    "a configuration that is a device": (link("config.yaml", "/dev/zero"), "is no run"),
    "a link to a secret": (link("config.yaml", "/etc/passwd"), "config.yaml"),
    "an unknown key": (with_settings(replays={}), "unknown key"),
    "no UTF-8": (with_file("config.yaml", b"\xff\xfe\x00"), "cannot be read"),
    "no mapping": (with_file("config.yaml", "[1, 2]"), "must hold sections"),
    "no YAML": (with_file("config.yaml", "a: ]"), "config.yaml:1"),
    "a number of a megabyte": (with_file("config.yaml", "seed: 0x" + "f" * 900_000), "characters"),
    "a Python object": (with_file("config.yaml", "seed: !!python/name:os.system"), "tag"),
}

TO_PLOT = {
    "a sparse table": (sparse("episodes.csv"), "at most 1,000,000,000 bytes are read"),
    # Rows that were cut are passed over.
    "a table of zeros": (with_file("episodes.csv", b"\x00" * 1_000_000), "nothing to plot"),
    "words for numbers": (
        with_file("episodes.csv", "env_steps,episode_return\n1,many\n"),
        "nothing to plot",
    ),
    "a row that is too short": (
        with_file("episodes.csv", "episode_return,env_steps\n1\n"),
        "nothing to plot",
    ),
    "other columns": (with_file("episodes.csv", "a,b\n1,2\n"), "no table of numbers"),
    "no text": (with_file("episodes.csv", b"\xff\xfe\n\n"), "no table of numbers"),
    "no finite numbers": (
        with_file("episodes.csv", "env_steps,episode_return\n1,1e999\n"),
        "finite",
    ),
    "a table that is a pipe": (fifo("episodes.csv"), "nothing to plot"),
    "a table that is a device": (link("episodes.csv", "/dev/zero"), "nothing to plot"),
    "a configuration that is a device": (link("config.yaml", "/dev/zero"), "is no run"),
    "a configuration that is a list": (with_file("config.yaml", "[1]"), "must hold sections"),
    "a number of a megabyte": (with_file("config.yaml", "seed: 1" + ":59" * 300_000), "characters"),
}


@pytest.mark.parametrize(("spoil", "text"), TO_PLAY.values(), ids=TO_PLAY)
def test_what_cannot_be_played_is_one_line(spoil, text, run):
    assert call("evaluate", run, "--episodes", 1).exit_code == 0
    spoil(run)
    expect_one_line(call("evaluate", run, "--episodes", 1), text)
    expect_one_line(call("play", run, "--video", run / "game.mp4"), text)


@pytest.mark.parametrize(("spoil", "text"), TO_PLOT.values(), ids=TO_PLOT)
def test_what_cannot_be_plotted_is_one_line(spoil, text, run):
    spoil(run)
    expect_one_line(call("plot", run, "--out", run / "plot.png"), text)


def test_the_name_of_a_folder_is_no_mathematics_and_no_escape(run):
    evil = run.parent / "\x1b[31m$\\frac{" / "[red]$x$"
    evil.parent.mkdir()
    run.rename(evil)
    done = call("plot", evil, "--out", evil / "plot.png")
    assert done.exit_code == 0, done.exception
    assert (evil / "plot.png").is_file()
    done = call("evaluate", evil, "--episodes", 1)
    assert done.exit_code == 0
    assert "[red]$x$" in done.output
    assert all(line.isprintable() for line in done.output.splitlines())


NO_CHECKPOINT = "no whole checkpoint"
TO_RESUME = {
    "no checkpoints": (lambda run: None, NO_CHECKPOINT),
    "a checkpoint that is a pipe": (
        lambda run: [
            (run / "checkpoints").mkdir(),
            os.mkfifo(run / "checkpoints" / "step-000000000010"),
        ],
        NO_CHECKPOINT,
    ),
    "checkpoints that are a file": (
        lambda run: (run / "checkpoints").write_text(""),
        "checkpoints",
    ),
    "an unknown key": (with_settings(replays={}), "unknown key"),
    "an environment of one's own": (environment("os.system"), "--allow-custom-classes"),
    "a plan of a comparison that is none": (
        lambda run: (run / "comparison.plan.json").write_text("[1]"),
        "comparison.plan.json",
    ),
    "a plan of a comparison that leads elsewhere": (
        lambda run: (run / "comparison.plan.json").write_text(
            json.dumps(
                {
                    "config": "x",
                    "target_return": None,
                    "runs": [{"replay": "../..", "seed": 0, "ignored": []}],
                }
            )
        ),
        "is no run: it has no config.yaml",
    ),
}


@pytest.mark.parametrize(("spoil", "text"), TO_RESUME.values(), ids=TO_RESUME)
def test_what_cannot_be_resumed_is_one_line(spoil, text, run, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    spoil(run)
    expect_one_line(call("resume", run), text)


RAY_FAILS = [
    Exception("The current node timed out during startup. This\ncould happen because ..."),
    TimeoutError("Timed out while waiting for node"),
    ValueError("AF_UNIX path length cannot exceed 107 bytes"),
]


@pytest.mark.parametrize("error", RAY_FAILS, ids=lambda error: type(error).__name__)
def test_a_ray_that_does_not_start_is_one_line(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ray, "init", fail)
    done = call("train", CONFIG, "--smoke", "--runs", tmp_path)
    expect_one_line(done, "Ray cannot be started on this machine")
    assert "ray stop" in done.output
    monkeypatch.setattr(ray_session, "_check_reachable", lambda _: None)
    done = call("train", CONFIG, "--smoke", "--runs", tmp_path, "--address", "auto")
    expect_one_line(done, "cannot join a Ray cluster at auto")


# -- how it ended --------------------------------------------------------------------------------

ENDED = {"ending": "finished", "env_steps": 5, "updates": 1, "time_s": 1.0, "evaluation": None}


def changed(**values):
    return json.dumps(ENDED | values)


@pytest.mark.parametrize(
    "content",
    [
        "",
        changed()[:40],
        "[]",
        changed(ending="wonderful"),
        changed(ending=5),
        changed(ending="interrupted\u001b[31m"),
        json.dumps({"ending": "finished"}),
        changed(env_steps="many"),
        changed(env_steps=-1),
        changed(evaluation=[1]),
        "\udcff\udcfe\x00",
        changed(env_steps=10).replace("10", "9" * 1_000_000),
        "[" * 200_000,
        changed().replace("5", "Infinity"),
        changed(time_s=float("nan")),
        None,
    ],
    ids=lambda content: str(content)[:30],
)
def test_a_result_that_does_not_say_how_the_run_ended_is_one_line(run, content):
    if content is None:
        (run / "result.json").mkdir()
    else:
        (run / "result.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    expect_one_line(call("resume", run), "does not say how the run ended")
    text = call("resume", run).output
    assert "\x1b" not in text
    assert len(text) < 1000
