# SPDX-License-Identifier: MIT
"""Metrics are appended, numbers only, and a resumed run forgets what came after its checkpoint."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from tensorboardX.proto.event_pb2 import SessionLog

from rllib_per.experiments import plotting
from rllib_per.experiments.episode_log import spread
from rllib_per.experiments.metrics_log import (
    MetricsLog,
    MetricsRow,
    episodes_of,
    flat_settings,
    flatten_numbers,
)
from rllib_per.experiments.plotting import moving_mean, plot_runs
from rllib_per.experiments.run_folder import RunFolder
from rllib_per.experiments.tables import header_of, read_rows
from tests.support.event_files import events_in, events_of
from tests.support.full_disk import files_of_at_most

SNAPSHOT = MetricsRow(
    env_steps=1000,
    updates=100,
    episodes=2,
    time_s=1.0,
    episode_return_mean=20.0,
    episode_len_mean=21.0,
    evaluation_return_mean=None,
    env_steps_per_s=500.0,
    updates_per_s=50.0,
    loss=0.5,
    q_mean=7.0,
    lr=1e-3,
    replay_ratio=8.0,
    epsilon=0.1,
    beta=0.4,
    buffer_size=500,
    buffer_capacity=1000,
)


@pytest.fixture
def run(tmp_path):
    """Three iterations of two episodes each."""
    run = RunFolder(tmp_path)
    with MetricsLog(run) as log:
        for steps in (1000, 2000, 3000):
            episodes = [(steps - 500, steps / 100, 10), (steps, steps / 100, 10)]
            log.write(replace(SNAPSHOT, env_steps=steps), {"a": {"b": 1.5}}, episodes)
    return run


def csv_steps(path):
    with path.open(newline="") as file:
        return [int(row["env_steps"]) for row in csv.DictReader(file)]


def test_every_iteration_is_one_row_everywhere(run):
    assert csv_steps(run.metrics_csv) == [1000, 2000, 3000]
    lines = [json.loads(line) for line in run.metrics_jsonl.read_text().splitlines()]
    assert [line["a/b"] for line in lines] == [1.5, 1.5, 1.5]
    assert [got for got, _ in episodes_of(run)] == [10, 10, 20, 20, 30, 30]
    assert list(run.tensorboard.glob("events.*"))


def test_a_resumed_run_drops_what_came_after_its_checkpoint(run):
    with run.metrics_jsonl.open("a") as file:
        file.write('{"env_steps": 35')  # Killed in the middle of a write.
    with MetricsLog(run, resume_at=2000) as log:
        log.write(replace(SNAPSHOT, env_steps=2500), {}, [(2500, 1.0, 1)])
    assert csv_steps(run.metrics_csv) == [1000, 2000, 2500]
    assert csv_steps(run.episodes_csv) == [500, 1000, 1500, 2000, 2500]
    lines = [json.loads(line) for line in run.metrics_jsonl.read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [1000, 2000, 2500]
    events = list(events_in(run.tensorboard))
    # TensorBoard forgets what earlier files have from the step on at which a session starts.
    (start,) = [e.step for e in events if e.session_log.status == SessionLog.START]
    assert start == 2001


CUTS = {
    "its last line": lambda data: data[:-7],
    "a line in the middle": lambda data: (lines := data.splitlines(True))[0].join(
        [b"", lines[1][:6] + lines[2], *lines[3:]]
    ),
    "a line that ends all the same": lambda data: data + b"17,\n",
    "a line of zeros, after a power failure": lambda data: data + b"\0" * 100,
    "its first line": lambda data: data[data.index(b"\n") // 2 :],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("name", ["metrics_csv", "episodes_csv", "metrics_jsonl"])
def test_a_cut_line_is_dropped_and_told_of_and_the_run_goes_on(run, name, cut):
    path = getattr(run, name)
    path.write_bytes(cut(path.read_bytes()))
    said = []
    with MetricsLog(run, resume_at=3000, report=said.append) as log:
        log.write(replace(SNAPSHOT, env_steps=3500), {}, [(3500, 1.0, 1)])
    assert [text.partition(": ")[0] for text in said] == [str(path)]
    assert "1 cut line dropped" in said[0]
    assert csv_steps(run.metrics_csv)[-1] == csv_steps(run.episodes_csv)[-1] == 3500
    assert episodes_of(run)[-1] == (1.0, 1)
    lines = [json.loads(line) for line in run.metrics_jsonl.read_text().splitlines()]
    assert lines[-1]["env_steps"] == 3500


@pytest.mark.parametrize("name", ["metrics_csv", "episodes_csv"])
def test_readers_pass_over_a_row_that_was_cut(run, name, tmp_path):
    path = getattr(run, name)
    before = read_rows(path)
    with path.open("a") as file:
        file.write("4000,3")
    assert read_rows(path) == before
    plot_runs([run], tmp_path / "curve.png")


def test_a_run_that_begins_anew_keeps_nothing_of_an_earlier_start(run):
    (earlier,) = run.tensorboard.iterdir()
    earlier = earlier.rename(earlier.with_name("events.out.tfevents.1.vm"))  # Names have seconds.
    with MetricsLog(run) as log:
        log.write(replace(SNAPSHOT, env_steps=500), {}, [(500, 1.0, 1)])
    assert csv_steps(run.metrics_csv) == csv_steps(run.episodes_csv) == [500]
    (line,) = run.metrics_jsonl.read_text().splitlines()
    assert json.loads(line)["env_steps"] == 500
    assert earlier not in run.tensorboard.iterdir()


@pytest.mark.parametrize("name", ["metrics_csv", "episodes_csv", "metrics_jsonl"])
def test_a_resumption_that_fails_in_the_middle_of_a_file_leaves_the_file_as_it_was(run, name):
    path = getattr(run, name)
    for other in {run.metrics_csv, run.episodes_csv, run.metrics_jsonl} - {path}:
        other.unlink()
    before, names = path.read_bytes(), set(run.path.iterdir())
    with files_of_at_most(len(before) // 2), pytest.raises(OSError, match="too large"):
        MetricsLog(run, resume_at=3000)
    assert path.read_bytes() == before
    assert set(run.path.iterdir()) == names


def test_what_a_killed_resumption_left_is_no_obstacle(run):
    run.metrics_csv.with_name(f".{run.metrics_csv.name}").write_text("env_steps,upd")
    with MetricsLog(run, resume_at=2000):
        pass
    assert csv_steps(run.metrics_csv) == [1000, 2000]


def test_a_full_disk_is_an_error_each_time_and_leaves_no_half_of_a_line(run):
    """The library's own writer of events blocks for ever after ten of them."""
    files = (run.metrics_csv, run.episodes_csv, run.metrics_jsonl)
    before = [path.read_bytes() for path in files]
    rows = [(4000, 1.0, 1)] * 1000
    with MetricsLog(run, resume_at=3000) as log:
        with files_of_at_most(max(map(len, before)) + 100):
            for _ in range(30):
                with pytest.raises(OSError, match="too large"):
                    log.write(replace(SNAPSHOT, env_steps=4000), {"a": {"b" * 9000: 1.0}}, rows)
        assert [path.read_bytes() for path in files[1:]] == before[1:]
        log.write(replace(SNAPSHOT, env_steps=5000), {}, [(5000, 1.0, 1)])
    assert csv_steps(run.episodes_csv)[-2:] == [3000, 5000]
    newest = max(run.tensorboard.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert any(event.step == 5000 for event in events_of(newest))


def test_only_finite_numbers_are_kept():
    result = {
        "a": np.float32(1.5),
        "b": {"c": 2, "d": float("nan"), "e": "text", "f": [1, 2]},
        "g": np.array(3),
    }
    assert dict(flatten_numbers(result)) == {"a": 1.5, "b/c": 2, "g": 3}


def test_episodes_of_an_iteration_are_spread_over_its_env_steps():
    rows = spread([(9.0, 20), (5.0, 30), (7.0, 10)], 100, 190)
    assert list(rows) == [(130, 9.0, 20), (160, 5.0, 30), (190, 7.0, 10)]
    assert list(spread([], 100, 190)) == []


def test_the_moving_mean_starts_with_what_there_is():
    values = np.array([1.0, 3.0, 5.0, 7.0])
    assert moving_mean(values, 2).tolist() == [1.0, 2.0, 4.0, 6.0]


def test_several_runs_go_into_one_picture(run, tmp_path):
    out = tmp_path / "made" / "curve.png"
    plot_runs([run, run], out, target_return=475)
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("ended_at", "points"), [(None, [2000]), (1999, [2000]), (2500, [2000, 2500])]
)
def test_greedy_evaluations_are_points_with_the_one_at_the_end(ended_at, points, tmp_path):
    run = RunFolder(tmp_path)
    with MetricsLog(run) as log:
        log.write(replace(SNAPSHOT, env_steps=2000, evaluation_return_mean=7.0), {}, [(1, 1.0, 1)])
    if ended_at is not None:
        result = {"ending": "finished", "env_steps": ended_at, "updates": 1, "time_s": 1.0}
        evaluation = {"episode_return_mean": 9.0, "num_episodes": 1}
        run.result.write_text(json.dumps(result | {"evaluation": evaluation}))
    axes = Figure().add_subplot()
    assert plotting._draw_curve(axes, run, with_episodes=False)
    greedy = axes.get_lines()[-1]
    assert greedy.get_xdata().tolist() == points
    assert greedy.get_ydata().tolist() == [7.0, 9.0][: len(points)]
    assert greedy.get_marker() == "o"


@pytest.mark.parametrize("greedy", [None, 7.0])
def test_the_legend_explains_what_is_drawn(greedy, tmp_path, monkeypatch):
    explained = []

    def legend(figure, **_):
        (axes,) = figure.axes
        explained.extend(axes.get_legend_handles_labels()[1])

    monkeypatch.setattr(Figure, "legend", legend)
    with MetricsLog(RunFolder(tmp_path)) as log:
        log.write(replace(SNAPSHOT, evaluation_return_mean=greedy), {}, [(1, 1.0, 1)])
    plot_runs([RunFolder(tmp_path)], tmp_path / "curve.png")
    assert "mean of 50 training episodes" in explained
    assert ("greedy evaluation" in explained) == (greedy is not None)


def of_environment(run, folder, env, seed=0):
    """A copy of the run that was named as if it had played `env`."""
    copy = folder / f"{env}-small-{seed}-2026-01-02T03-04-05"
    shutil.copytree(run.path, copy)
    (copy / "config.yaml").write_text(f"environment: {{env: {env}}}\nseed: {seed}\n")
    return RunFolder(copy)


def test_curves_are_called_by_environment_configuration_and_seed(run, tmp_path):
    named = of_environment(run, tmp_path, "Acrobot-v1", 3)
    assert str(plotting._read_name(named)) == "Acrobot-v1 small, seed 3"
    assert named.path.name.startswith(plotting._read_name(named).stem)
    elsewhere = RunFolder(named.path.rename(tmp_path / "mine"))
    assert str(plotting._read_name(elsewhere)) == f"Acrobot-v1 {tmp_path.name}, seed 3"


def test_environments_share_no_axis(run, tmp_path):
    runs = [of_environment(run, tmp_path, env) for env in ("Acrobot-v1", "CartPole-v1")]
    out = tmp_path / "curve.png"
    with pytest.raises(ValueError, match=r"got Acrobot-v1, CartPole-v1; .*--facet"):
        plot_runs(runs, out)
    assert not out.exists()
    plot_runs(runs, out, facet=True)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_runs_without_an_episode_cannot_be_plotted(tmp_path):
    with pytest.raises(ValueError, match=r"has no episodes\.csv with an ended episode"):
        plot_runs([RunFolder(tmp_path)], tmp_path / "curve.png")


# What RLlib's result says, some of it twice.
RESULT = {
    "env_runners": {"episode_len_max": 9, "num_env_steps_sampled_lifetime": 1000.0},
    "learners": {
        "default_policy": {"qf_mean": 7.0, "qf_max": 9.0, "weights_seq_no": 4.0},
        "__all_modules__": {"num_env_steps_trained": 3},
    },
    "replay_buffer": {"beta": 0.4, "epsilon": 0.1, "max_priority": 2.0},
    "num_env_steps_sampled_lifetime": 1000.0,
}


def tags(tensorboard):
    return [value.tag for event in events_in(tensorboard) for value in event.summary.value]


def test_tensorboard_has_each_number_once_and_the_lines_have_all(tmp_path):
    run = RunFolder(tmp_path)
    with MetricsLog(run) as log:
        log.write(SNAPSHOT, RESULT, [])
    logged = tags(run.tensorboard)
    assert len(logged) == len(set(logged))
    names = [tag.rpartition("/")[2] for tag in logged]
    assert len(names) == len(set(names)), "no two of one name"
    assert {"loss", "q_mean", "lr", "episode_len_mean", "replay_buffer/max_priority"} <= set(logged)
    (line,) = run.metrics_jsonl.read_text().splitlines()
    assert json.loads(line)["learners/default_policy/qf_mean"] == 7.0


def test_tensorboard_has_the_hyper_parameters_and_the_text(tmp_path):
    run = RunFolder(tmp_path)
    settings = {"training": {"lr": 0.25, "n_step": [1, 3], "tau": None}, "seed": 3}
    with MetricsLog(run) as log:
        log.describe(settings, "seed: 3\n", 0)
    values = [value for event in events_in(run.tensorboard) for value in event.summary.value]
    (text,) = [
        value.tensor.string_val[0].decode() for value in values if value.tag.startswith("config")
    ]
    assert text == "    seed: 3\n"
    content = b"".join(v.metadata.plugin_data.content for v in values if "hparam" in v.tag)
    assert b"training.lr" in content
    assert b"training.tau" not in content
    assert flat_settings(settings) == {"training.lr": 0.25, "training.n_step": "[1, 3]", "seed": 3}


def test_a_run_of_another_version_keeps_the_columns_that_it_began_with(run):
    path = run.metrics_csv
    path.write_text("env_steps,updates,beta\r\n1000,100,0.4\r\n")
    with MetricsLog(run, resume_at=1000) as log:
        log.write(replace(SNAPSHOT, env_steps=1500), {}, [])
    assert read_rows(path) == [
        {"env_steps": "1000", "updates": "100", "beta": "0.4"},
        {"env_steps": "1500", "updates": "100", "beta": "0.4"},
    ]


@pytest.mark.parametrize("name", ["metrics_csv", "episodes_csv", "metrics_jsonl"])
def test_a_resumed_run_begins_a_file_that_is_gone_anew(run, name):
    columns = header_of(run.metrics_csv)
    getattr(run, name).unlink()
    with MetricsLog(run, resume_at=3000) as log:
        log.write(replace(SNAPSHOT, env_steps=3500), {}, [(3500, 1.0, 1)])
    assert header_of(run.metrics_csv) == columns
    assert csv_steps(run.metrics_csv)[-1] == csv_steps(run.episodes_csv)[-1] == 3500
    assert episodes_of(run)[-1] == (1.0, 1)
