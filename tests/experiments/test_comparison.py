# SPDX-License-Identifier: MIT
"""Comparing replay buffers: what is run, what it came to, and what cannot be compared."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from rllib_per.cli import main
from rllib_per.experiments.comparing.comparison import ComparisonFolder, plan_comparison
from rllib_per.experiments.comparing.report import (
    Outcome,
    on_one_grid,
    outcome_of,
    report,
    summarize,
)
from rllib_per.experiments.experiment import load_experiment
from rllib_per.experiments.intervals import Interval
from rllib_per.experiments.metrics_log import MetricsRow
from rllib_per.experiments.yaml_source import ConfigError
from rllib_per.settings.replay import without_effect

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = CONFIGS / "cartpole.yaml"


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# -- the plan ----------------------------------------------------------------------------------


def test_every_buffer_gets_every_seed_and_the_whole_budget():
    compared_runs, target = plan_comparison(CONFIG, ["prioritized", "rllib_uniform"], 2, seed=5)
    assert [c.name for c in compared_runs] == [
        "prioritized/seed-5",
        "rllib_uniform/seed-5",
        "prioritized/seed-6",
        "rllib_uniform/seed-6",
    ]
    assert target == 475
    assert {c.experiment.stop.target_return for c in compared_runs} == {None}
    assert {c.experiment.stop.env_steps for c in compared_runs} == {50_000}


def test_runs_differ_in_the_buffer_and_in_what_it_does_not_have():
    overrides = ["replay.priority=huber", "training.n_step=2"]
    (ours, theirs), _ = plan_comparison(CONFIG, ["prioritized", "rllib_uniform"], 1, overrides)
    assert ours.ignored == ()
    assert theirs.ignored == ("alpha", "beta", "weight_normalization", "priority")
    assert ours.experiment.replay.priority == "huber"
    assert theirs.experiment.replay.type == "rllib_uniform"
    assert theirs.experiment.replay.capacity == ours.experiment.replay.capacity
    sections = {"replay": theirs.experiment.replay}
    assert ours.experiment.model_copy(update=sections) == theirs.experiment


@pytest.mark.parametrize("replay", ["uniform", "rllib_uniform"])
def test_uniform_replay_is_given_nothing_about_priorities(replay):
    atari = CONFIGS / "atari" / "btr_small.yaml"
    for config, of_training in ((CONFIG, None), (atari, "quantile_td_errors")):
        assert load_experiment(config).training.priority == of_training
        (run,), _ = plan_comparison(config, [replay], 1)
        assert {"alpha", "beta"} <= set(run.ignored)
        assert ("training.priority" in run.ignored) == (of_training is not None)
        # So that no run warns of what the user did not write.
        assert without_effect(run.experiment.replay, run.experiment.training.priority) == []


def test_every_run_of_a_comparison_plays_at_the_end():
    never = ["evaluation={final: false}", "stop={env_steps: 1000}"]
    runs, _ = plan_comparison(CONFIGS / "cartpole.yaml", ["uniform"], 1, never)
    assert all(run.experiment.plays_at_the_end for run in runs)


@pytest.mark.parametrize("name", ["pong.yaml", "pong_apex_cluster.yaml"])
def test_a_smoke_comparison_is_of_what_a_smoke_training_would_train(name):
    path = CONFIGS / "atari" / name
    smoke = load_experiment(path, smoke=True)
    (compared_run,), _ = plan_comparison(path, [smoke.replay.type], 1, smoke=True)
    assert compared_run.experiment == smoke


@pytest.mark.parametrize(
    ("replays", "message"),
    [
        (["prioritized", "rllib_priortized"], "did you mean 'rllib_prioritized'?"),
        (["prioritized", "prioritized"], "--replay: name each buffer once"),
        ([], "--replay: name each buffer once"),
        (["my.own.Buffer"], "--allow-custom-classes"),
    ],
)
def test_what_cannot_be_compared_is_refused(replays, message):
    with pytest.raises(ConfigError) as caught:
        plan_comparison(CONFIG, replays, 1)
    assert message in str(caught.value)


def test_the_command_line_says_what_is_wrong_before_a_folder_exists(tmp_path):
    arguments = ("compare", CONFIG, "--runs", tmp_path)
    assert call(*arguments).exit_code == 2
    assert call(*arguments, "--replay", "prioritized", "--seeds", 0).exit_code == 2
    done = call(*arguments, "--replay", "prioritized,unifrom")
    assert done.exit_code == 2
    assert "error: --replay unifrom: replay.type: " in done.output
    assert "did you mean 'uniform'?" in done.output
    done = call(*arguments, "--replay", "uniform", "--set", "replay.alhpa=1")
    assert done.exit_code == 2
    assert "did you mean replay.alpha?" in done.output
    done = call(*arguments, "--replay", "rllib_uniform", "--set", "training.n_step=[3,3]")
    assert done.exit_code == 2
    assert "which is empty" in done.output
    assert list(tmp_path.iterdir()) == []


# -- the figures -------------------------------------------------------------------------------


def test_an_interval_is_students_t_over_seeds():
    # t_{0.975, 2} = 4.30265 and the standard error of 1, 2, 6 is sqrt(7 / 3).
    interval = Interval.of([1.0, 2.0, 6.0])
    assert interval.mean == 3.0
    assert interval.half_width == pytest.approx(4.302653 * math.sqrt(7 / 3), rel=1e-6)
    assert str(interval) == "3.0 ± 6.6"
    assert str(Interval.of([1234.5])) == "1,234.5"
    assert Interval.of([1.0, 3.0]).half_width == pytest.approx(12.706205, rel=1e-6)
    assert interval.text(3) == "3.000 ± 6.572"


def write_run(run, rows, final_return):
    """A finished run: rows are (env_steps, updates, env_steps_per_s, greedy return or None)."""
    run.path.mkdir(parents=True, exist_ok=True)
    names = list(MetricsRow.__dataclass_fields__)
    with run.metrics_csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        keys = ("env_steps", "updates", "env_steps_per_s", "evaluation_return_mean")
        writer.writerows(dict(zip(keys, row, strict=True)) for row in rows)
    steps, updates = rows[-1][:2]
    result = {
        "ending": "finished",
        "env_steps": steps,
        "updates": updates,
        "time_s": 1.0,
        "evaluation": {"episode_return_mean": final_return, "num_episodes": 1},
    }
    run.result.write_text(json.dumps(result))


ROWS = [
    (1000, 0, 9000.0, None),  # Before learning starts: not counted as speed.
    (2000, 500, 100.0, 480.0),  # 10 s
    (4000, 1500, 400.0, 200.0),  # 5 s
    (5000, 2000, 200.0, None),  # 5 s
]


def test_figures_of_a_run_come_from_its_own_files(tmp_path):
    (compared_run,), _ = plan_comparison(CONFIG, ["uniform"], 1, seed=4)
    run = ComparisonFolder(tmp_path).run(compared_run)
    write_run(run, ROWS, 321.0)
    assert outcome_of(compared_run, run, target=475.0) == Outcome(
        replay="uniform",
        seed=4,
        env_steps=5000,
        updates=2000,
        env_steps_per_s=4000 / 20,
        updates_per_s=2000 / 20,
        final_return=321.0,
        env_steps_to_target=2000,
    )
    assert outcome_of(compared_run, run, target=None).env_steps_to_target is None
    assert outcome_of(compared_run, run, target=490.0).env_steps_to_target is None
    write_run(run, ROWS, 495.0)
    assert outcome_of(compared_run, run, target=490.0).env_steps_to_target == 5000


def outcome(replay, seed, final_return, to_target):
    return Outcome(replay, seed, 5000, 2000, 200.0, 100.0, final_return, to_target)


def test_steps_to_the_target_have_a_mean_only_where_every_seed_made_it():
    summary = summarize(
        [
            outcome("uniform", 0, 100.0, 2000),
            outcome("prioritized", 0, 400.0, 1000),
            outcome("uniform", 1, 300.0, None),
            outcome("prioritized", 1, 500.0, 3000),
        ]
    )
    assert list(summary) == ["uniform", "prioritized"]
    assert summary["uniform"]["env_steps_to_target"] is None
    assert summary["uniform"]["num_reached_target"] == 1
    assert summary["prioritized"]["env_steps_to_target"].mean == 2000
    assert summary["uniform"]["final_return"].mean == 200.0


def test_curves_are_compared_where_all_of_them_are():
    first = (np.array([100.0, 300.0]), np.array([0.0, 2.0]))
    second = (np.array([200.0, 500.0]), np.array([5.0, 5.0]))
    grid, values = on_one_grid([first, second])
    assert (grid[0], grid[-1]) == (200.0, 300.0)
    np.testing.assert_allclose(values[:, 0], [1.0, 5.0])
    np.testing.assert_allclose(values[:, -1], [2.0, 5.0])


def test_a_report_is_of_the_finished_runs_and_names_what_was_left_out(tmp_path):
    compared_runs, target = plan_comparison(CONFIG, ["prioritized", "rllib_uniform"], 2)
    folder = ComparisonFolder.create(tmp_path, "cartpole", compared_runs, target)
    with pytest.raises(ValueError, match="rllib-per resume"):
        report(folder, compared_runs)
    for compared_run in compared_runs[:3]:
        write_run(folder.run(compared_run), ROWS, 100.0 + compared_run.experiment.seed)
    table = report(folder, compared_runs)
    assert [column.header for column in table.columns][-1] == "env steps to 475"
    with folder.results_csv.open(newline="") as file:
        assert [(row["replay"], row["seed"]) for row in csv.DictReader(file)] == [
            ("prioritized", "0"),
            ("rllib_uniform", "0"),
            ("prioritized", "1"),
        ]
    results = json.loads(folder.results_json.read_text())
    assert results["ignored"]["rllib_uniform"] == ["alpha", "beta", "weight_normalization"]
    assert results["replays"]["prioritized"]["final_return"]["mean"] == 100.5
    assert results["replays"]["rllib_uniform"]["final_return"]["half_width"] is None
    assert folder.plot.read_bytes().startswith(b"\x89PNG")


def test_small_returns_have_the_decimals_that_tell_them_apart(tmp_path):
    compared_runs, target = plan_comparison(CONFIG, ["prioritized"], 1)
    folder = ComparisonFolder.create(tmp_path, "cartpole", compared_runs, target)
    write_run(folder.run(compared_runs[0]), ROWS, 0.65)
    column = report(folder, compared_runs).columns[4]
    assert (column.header, *column.cells) == ("final greedy return", "0.650")


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_an_interval_is_claimed_of_several_seeds_only(num_seeds, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    compared_runs, target = plan_comparison(CONFIG, ["uniform"], num_seeds)
    folder = ComparisonFolder.create(tmp_path, "cartpole", compared_runs, target)
    for compared_run in compared_runs:
        write_run(folder.run(compared_run), ROWS, 100.0)
    table = report(folder, compared_runs)
    results = json.loads(folder.results_json.read_text())
    (axes,) = figures[0].axes
    is_claimed = num_seeds > 1
    assert ("t interval" in table.title) == is_claimed
    assert ("t interval" in axes.get_title()) == is_claimed
    assert (results["interval"] is not None) == is_claimed
    assert axes.get_lines()[0].get_label() == ["uniform (1 seed)", "uniform (2 seeds)"][is_claimed]


def test_a_folder_gives_back_the_runs_that_were_planned(tmp_path):
    compared_runs, target = plan_comparison(
        CONFIG, ["uniform", "rllib_uniform"], 2, ["replay.capacity=9000"]
    )
    folder = ComparisonFolder.create(tmp_path, "cartpole", compared_runs, target)
    assert ComparisonFolder.holds(folder.path)
    assert not ComparisonFolder.holds(tmp_path)
    assert folder.compared_runs() == compared_runs


@pytest.mark.parametrize(
    "name", ["ours.py:Mine", "some/../../ours.py:Mine", "..", "", "/ours.py:Mine"]
)
def test_no_buffers_name_leads_out_of_the_folder(name, tmp_path):
    (compared_run,), target = plan_comparison(CONFIG, ["uniform"], 1)
    planned = [dataclasses.replace(compared_run, replay=each) for each in (name, "a.Buffer")]
    folder = ComparisonFolder.create(tmp_path / "comparisons", "cartpole", planned, target)
    assert folder.compared_runs() == planned
    for each in planned:
        assert folder.run(each).config.is_file()
        assert folder.run(each).path.resolve().is_relative_to(folder.path)
    assert folder.run(planned[1]).path == folder.path / "a.Buffer" / "seed-0"


# -- the whole -----------------------------------------------------------------------------------


@pytest.mark.ray
def test_compare_trains_all_and_resume_only_what_is_missing(one_ray, tmp_path):
    arguments = ("compare", CONFIG, "--smoke", "--runs", tmp_path)
    replays = ("--replay", "uniform,rllib_prioritized")
    done = call(*arguments, *replays, "--set", "stop.env_steps=600")
    assert done.exit_code == 0, done.output
    assert "rllib_prioritized has no weight_normalization: left out." in done.output
    assert "uniform has no alpha, beta, weight_normalization: left out." in done.output
    (path,) = tmp_path.iterdir()
    folder = ComparisonFolder(path)
    results = json.loads(folder.results_json.read_text())
    assert set(results["replays"]) == {"uniform", "rllib_prioritized"}
    assert all(row["updates_per_s"]["mean"] > 0 for row in results["replays"].values())
    kept, again = (folder.run(c) for c in folder.compared_runs())
    before = kept.result.stat().st_mtime_ns
    again.result.unlink()
    folder.plot.unlink()
    done = call("resume", path)
    assert done.exit_code == 0, done.output
    assert kept.result.stat().st_mtime_ns == before
    assert again.result.is_file()
    assert folder.plot.is_file()
