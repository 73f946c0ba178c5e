# SPDX-License-Identifier: MIT
"""What a search file may say, and what is said of it when it is wrong."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import yaml
from ray.tune.search.optuna import OptunaSearch

from rllib_per.experiments.terminal import PlainConsole
from rllib_per.experiments.tuning.display import TuningDisplay
from rllib_per.experiments.tuning.optuna_search import PatientOptunaSearch
from rllib_per.experiments.tuning.plan import experiment_of, load_plan, parameters
from rllib_per.experiments.tuning.report import outcomes
from rllib_per.experiments.tuning.search import ending_of
from rllib_per.experiments.tuning.space import SearchValue
from rllib_per.experiments.tuning.trial import ExperimentTrial
from rllib_per.experiments.yaml_source import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "tune"

SEARCH = """\
environment:
  env: CartPole-v1
training:
  lr: {type: linear, initial: {loguniform: [1e-4, 1e-2]}, final: 1e-4, steps: 50000}
  n_step: {choice: [1, 3]}
replay:
  alpha: {uniform: [0.3, 0.9]}
stop:
  env_steps: 50000
tune:
  num_samples: 4
"""


def plan_of(tmp_path, text, *overrides, **options):
    path = tmp_path / "search.yaml"
    path.write_text(text)
    return load_plan(path, overrides, **options)


def problems_of(tmp_path, text, *overrides, **options):
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, text, *overrides, **options)
    return [str(p).removeprefix(f"{tmp_path}/") for p in caught.value.problems]


def replaced(old, new):
    assert SEARCH.count(old) == 1
    return SEARCH.replace(old, new)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_searches_of_this_repository_are_sound(path):
    plan = load_plan(path)
    assert plan.values
    load_plan(path, smoke=True)


def test_values_are_found_where_they_stand_also_in_a_schedule(tmp_path):
    plan = plan_of(tmp_path, SEARCH)
    found = {value.name: (value.kind, value.arguments) for value in plan.values}
    assert found == {
        "training.lr.initial": ("loguniform", (1e-4, 1e-2)),
        "training.n_step": ("choice", (1, 3)),
        "replay.alpha": ("uniform", (0.3, 0.9)),
    }


def test_what_a_run_records_is_a_search_again(tmp_path):
    plan = plan_of(tmp_path, SEARCH)
    again = plan_of(tmp_path, plan.to_yaml())
    assert (again.config, again.values) == (plan.config, plan.values)
    assert yaml.safe_load(plan.to_yaml())["replay"]["capacity"] == 50_000


def test_a_trials_data_is_an_experiment_with_the_values_in_place(tmp_path):
    plan = plan_of(tmp_path, SEARCH)
    data = plan.data({("replay", "alpha"): 0.5, ("training", "n_step"): 3})
    experiment = experiment_of(data)
    assert (experiment.replay.alpha, experiment.training.n_step) == (0.5, 3)
    assert parameters(plan.values, data) == {
        "training.lr.initial": 1e-4,
        "training.n_step": 3,
        "replay.alpha": 0.5,
    }


def test_a_smoke_search_takes_little_memory_and_few_cores(tmp_path):
    large = ("replay.capacity=1000000", "env_runners.num_env_runners=20")
    path = tmp_path / "large.yaml"
    path.write_text(plan_of(tmp_path, SEARCH, *large).to_yaml())
    config = load_plan(path, smoke=True).config
    assert config.replay.capacity == 50_000
    assert config.env_runners.num_env_runners == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{uniform: [0.9, 0.3]}", "uniform needs low < high: got [0.9, 0.3]"),
        ("{uniform: [0.3]}", "uniform needs [low, high], numbers: got [0.3]"),
        ("{uniform: [0.3, high]}", "uniform needs [low, high], numbers: got [0.3, 'high']"),
        ("{loguniform: [0, 1]}", "loguniform needs low > 0: got [0, 1]"),
        ("{quniform: [0.1, 0.9, 0]}", "quniform needs step > 0: got [0.1, 0.9, 0]"),
        (
            "{quniform: [0.1, 0.9, 0.3]}",
            "quniform needs bounds that are multiples of its step: got [0.1, 0.9, 0.3]",
        ),
        ("{randint: [0.5, 2]}", "randint needs integers: got [0.5, 2]"),
        ("{choice: []}", "choice needs a list of at least one value: got []"),
        ("{unifrom: [0.3, 0.9]}", "unknown search value 'unifrom'; did you mean 'uniform'?"),
    ],
)
def test_a_value_that_is_wrong_is_named_with_its_line(tmp_path, wrong, message):
    problems = problems_of(tmp_path, replaced("{uniform: [0.3, 0.9]}", wrong))
    assert problems[0] == f"search.yaml:7: replay.alpha: {message}"


def test_every_bound_and_choice_is_tried_before_anything_runs(tmp_path):
    high = problems_of(tmp_path, replaced("[0.3, 0.9]", "[-0.5, 0.9]"))
    assert high == ["search.yaml:7: replay.alpha: must be greater than or equal to 0: got -0.5"]
    choice = problems_of(tmp_path, replaced("[1, 3]", "[1, three]"))
    assert len(choice) == 1
    assert choice[0].startswith("search.yaml:5: training.n_step: ")
    assert choice[0].endswith("got 'three'")


@pytest.mark.parametrize(
    ("value", "is_sound"),
    [
        ("{uniform: [16, 128]}", False),
        ("{loguniform: [16, 128]}", False),
        ("{quniform: [16, 128, 0.5]}", False),
        ("{quniform: [16, 128, 16]}", True),
        ("{randint: [16, 128]}", True),
    ],
)
def test_integers_are_searched_for_by_what_draws_integers(value, is_sound, tmp_path):
    text = replaced("  n_step:", f"  train_batch_size_per_learner: {value}\n  n_step:")
    if is_sound:
        assert plan_of(tmp_path, text).values
    else:
        (problem,) = problems_of(tmp_path, text)
        assert "train_batch_size_per_learner: " in problem
        assert "integer" in problem


@pytest.mark.parametrize("bounds", [(16, 128, 16), (0.2, 1.0, 0.2), (1.0, 9.0, 1)])
def test_what_pbt_multiplied_is_brought_back_to_what_can_be_drawn(bounds):
    low, high, step = bounds
    value = SearchValue(("training", "lr"), "quniform", bounds)
    for drawn in np.arange(low, high + step / 2, step):
        for factor in (0.8, 1.0, 1.2):
            clamped = value.clamp(drawn * factor)
            assert low <= clamped <= high
            assert clamped / step == pytest.approx(round(clamped / step))
            assert abs(clamped - drawn * factor) <= max(step / 2, drawn * 0.2) + 1e-9
    assert SearchValue(("seed",), "choice", (3, 1)).clamp(5) == 5


def test_a_smoke_search_needs_no_tune_section_and_leaves_what_is_set(tmp_path):
    without = SEARCH.partition("tune:")[0]
    assert plan_of(tmp_path, without, smoke=True).tune.num_samples == 2
    five = plan_of(tmp_path, SEARCH, "tune.num_samples=5", smoke=True).tune
    assert (five.num_samples, five.scheduler.grace_env_steps) == (5, 500)
    plain = plan_of(tmp_path, SEARCH, "tune.scheduler={type: none}", smoke=True).tune
    assert (plain.num_samples, plain.scheduler.type) == (2, "none")
    grace = plan_of(tmp_path, SEARCH, "tune.scheduler={grace_env_steps: 700}", smoke=True).tune
    assert grace.scheduler.grace_env_steps == 700


def test_each_variant_has_one_value_more_changed_than_the_first(tmp_path):
    plan = plan_of(tmp_path, SEARCH)
    assert plan.config is plan.variants[0]
    found = [parameters(plan.values, variant.model_dump()) for variant in plan.variants]
    first, *others = found
    assert first == {"training.lr.initial": 1e-4, "training.n_step": 1, "replay.alpha": 0.3}
    changed = [name for each in others for name in each if each[name] != first[name]]
    assert changed == ["training.lr.initial"] * 2 + ["training.n_step"] + ["replay.alpha"] * 2


def test_a_value_within_a_list_or_outside_the_searched_sections_is_refused(tmp_path):
    inside = replaced("{choice: [1, 3]}", "[1, {choice: [3, 5]}]")
    assert "training.n_step.1: cannot stand within a list" in problems_of(tmp_path, inside)[0]
    outside = replaced("env_steps: 50000", "env_steps: {choice: [1000, 2000]}")
    assert problems_of(tmp_path, outside)[0].startswith("search.yaml:9: stop.env_steps: ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.num_sample=3", "tune.num_sample: unknown key; did you mean tune.num_samples?"),
        (
            "tune.scheduler={type: asha, interval_env_steps: 100}",
            "tune.scheduler: interval_env_steps can be set only with type: pbt",
        ),
        (
            "tune.metric=evaluation_return_mean",
            "tune.metric: evaluation_return_mean needs evaluation.interval_env_steps",
        ),
        (
            "tune.scheduler={grace_env_steps: 60000}",
            "tune.scheduler.grace_env_steps: must be less than stop.env_steps: got 60000 and 50000",
        ),
    ],
)
def test_a_tune_section_that_is_wrong_says_what_to_do(tmp_path, override, message):
    (problem,) = problems_of(tmp_path, SEARCH, override)
    assert problem == f"--set {override}: {message}"


def test_pbt_needs_something_that_it_can_perturb(tmp_path):
    overrides = ("tune.scheduler={type: pbt}", "replay.alpha=0.6", "training.lr=1e-3")
    (problem,) = problems_of(tmp_path, SEARCH, *overrides)
    assert "pbt has nothing to perturb; search for one of replay.alpha" in problem
    more = ("tune.scheduler={type: pbt}", "env_runners.num_env_runners={choice: [0, 1]}")
    (problem,) = problems_of(tmp_path, SEARCH, *more)
    assert problem.endswith("pbt cannot search for it: a trial keeps the CPUs that it was given")


def test_without_optuna_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = problems_of(tmp_path, SEARCH, "tune.search={type: optuna}")
    assert problem.endswith("Optuna is not installed: pip install 'rllib-per[tune]'")


def test_there_must_be_something_to_search_for(tmp_path):
    text = "environment: {env: CartPole-v1}\nstop: {env_steps: 9000}\ntune: {num_samples: 2}\n"
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith("search.yaml:3: tune: there is nothing to search for")


def test_trackers_need_trust_and_take_no_secrets(tmp_path):
    tracker = "tune.trackers=[{callback_class: my.Tracker, options: {project: x}}]"
    (problem,) = problems_of(tmp_path, SEARCH, tracker)
    assert "'my.Tracker' would be imported and run" in problem
    assert plan_of(tmp_path, SEARCH, tracker, allow_custom_classes=True).tune.trackers
    secret = "  trackers: [{callback_class: my.Tracker, options: {api_key: abc}}]\n"
    (problem,) = problems_of(tmp_path, SEARCH + secret, allow_custom_classes=True)
    assert "api_key looks like a secret" in problem
    assert "abc" not in problem


def test_the_metric_is_the_greedy_return_where_there_is_one(tmp_path):
    assert plan_of(tmp_path, SEARCH).metric == "episode_return_mean"
    greedy = plan_of(tmp_path, SEARCH, "evaluation.interval_env_steps=1000")
    assert greedy.metric == "evaluation_return_mean"


def results_of(plan, *trials):
    """What Tune tells of trials, each with its last score and env steps; a score None: none."""
    told = []
    for number, (score, env_steps) in enumerate(trials):
        rows = [] if score is None else [{"env_steps": env_steps, plan.metric: score}]
        told.append(
            SimpleNamespace(
                config=plan.variants[0].model_dump(mode="json"),
                error=None,
                metrics={"trial_id": f"x_{number:05d}"},
                metrics_dataframe=pandas.DataFrame(rows, columns=["env_steps", plan.metric]),
                path=f"trial_{number:05d}",
            )
        )
    return told


@pytest.mark.parametrize(
    ("overrides", "order"),
    [
        ((), [1, 2, 0, 3]),
        (("tune.mode=min",), [0, 2, 1, 3]),
        # Of those that reached the target, the one that needed the fewest env steps.
        (("stop.target_return=90",), [2, 1, 0, 3]),
    ],
)
def test_the_best_trial_comes_first_and_one_without_a_score_last(tmp_path, overrides, order):
    plan = plan_of(tmp_path, SEARCH, *overrides)
    found = outcomes(results_of(plan, (10, 100), (200, 900), (100, 500), (None, 0)), plan)
    assert [int(trial.number) for trial in found] == order


@pytest.mark.parametrize(
    ("overrides", "score", "interrupted", "ending"),
    [
        ((), 100, False, "finished"),
        (("stop.target_return=90",), 100, False, "target_met"),
        (("stop.target_return=90",), 80, False, "budget_ended"),
        (("stop.target_return=90",), 100, True, "interrupted"),
    ],
)
def test_a_search_ends_as_its_best_trial_did(tmp_path, overrides, score, interrupted, ending):
    plan = plan_of(tmp_path, SEARCH, *overrides)
    (best,) = outcomes(results_of(plan, (score, 500)), plan)
    assert ending_of(best, plan, interrupted=interrupted) == ending


@pytest.mark.parametrize(("mode", "best"), [("max", "200"), ("min", "10")])
def test_the_best_that_is_shown_is_the_best_by_the_mode(mode, best, capsys, monkeypatch):
    display = TuningDisplay("a search", (), "score", mode)
    monkeypatch.setattr(display, "_console", PlainConsole(width=80))
    trials = [SimpleNamespace(trial_id=f"x_{n}", status="RUNNING", config={}) for n in range(3)]
    for trial, score in zip(trials, (math.nan, 10.0, 200.0), strict=True):
        display._last_line_s = -math.inf
        display.on_trial_result(0, trials, trial, {"env_steps": 5, "score": score})
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"best score {best}")


def test_a_metric_that_no_result_has_is_told_of_once(capsys, monkeypatch):
    display = TuningDisplay("a search", (), "env_runners/episode_len_maen", "max")
    monkeypatch.setattr(display, "_console", PlainConsole(width=200))
    trial = SimpleNamespace(trial_id="x_0", status="RUNNING", config={})
    for _ in range(2):
        result = {"env_runners": {"episode_len_mean": 5.0}, "env_steps": 5}
        display.on_trial_result(0, [trial], trial, result)
    told = [line for line in capsys.readouterr().out.splitlines() if "tune.metric" in line]
    assert told == [
        "tune.metric: a result is without env_runners/episode_len_maen; did you mean "
        "'env_runners/episode_len_mean'?"
    ]


def test_a_display_of_a_search_that_was_begun_before_modes_shows_the_largest():
    state = TuningDisplay("a search", (), "score", "max").__getstate__()
    del state["_mode"]
    display = TuningDisplay.__new__(TuningDisplay)
    vars(display).update(state)
    display._results = {"x_0": {"score": 1.0}, "x_1": {"score": 2.0}}
    assert display._best() == "2"
    assert not display._has_warned


def test_optuna_is_told_of_what_there_is(monkeypatch):
    told = []
    monkeypatch.setattr(OptunaSearch, "on_trial_result", lambda _, *given: told.append(given))
    search = PatientOptunaSearch.__new__(PatientOptunaSearch)
    search._metric = "learners/loss"
    search.on_trial_result("x_0", {"env_steps": 5})
    search.on_trial_result("x_0", {"env_steps": 9, "learners/loss": 0.5})
    assert told == [("x_0", {"env_steps": 9, "learners/loss": 0.5})]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("stop", "counter", "limit"),
    [({"env_steps": 300}, "env_steps", 300), ({"updates": 7}, "updates", 7)],
)
def test_a_trial_ends_with_the_round_in_which_its_budget_is_used_up(
    tmp_path, one_ray, stop, counter, limit
):
    settings = "training={num_steps_sampled_before_learning_starts: 100}"
    plan = plan_of(tmp_path, SEARCH, f"stop={stop}", settings, "tune.scheduler={type: none}")
    trial = ExperimentTrial(plan.variants[0].model_dump(mode="json"))
    spent = trial.step()[counter]
    trial.stop()
    per_round = plan.config.env_runners.num_envs_total * 4
    assert limit <= spent <= limit + per_round
