# SPDX-License-Identifier: MIT
"""Search with Ray Tune: many trials of one experiment, compared while they run."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune import (
    Callback,
    CheckpointConfig,
    FailureConfig,
    ResultGrid,
    RunConfig,
    TuneConfig,
    Tuner,
)
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search.basic_variant import BasicVariantGenerator

from rllib_per.experiments.interruption import leaving_after
from rllib_per.experiments.named_classes import import_class, option_for
from rllib_per.experiments.run_folder import Ending
from rllib_per.experiments.tuning.display import TuningDisplay, make_console, number_of
from rllib_per.experiments.tuning.plan import SearchPlan, TuningFolder
from rllib_per.experiments.tuning.report import (
    TrialOutcome,
    outcome_table,
    outcomes,
    write_report,
)
from rllib_per.experiments.tuning.space import SearchValue, get, put
from rllib_per.experiments.tuning.trial import ExperimentTrial

_SHOWN = 10
# Trials save their checkpoints; Tune itself gives up what does not answer after 80 s.
_PATIENCE_S = 120.0
# Of "pbt": a checkpoint must stay for as long as another trial may go on from it.
_KEPT_BY_PBT = 5


class NoResultError(RuntimeError):
    """A search without a result; the message says where to look."""


def start(plan: SearchPlan, folder: TuningFolder) -> Tuner:
    """A new search."""
    return Tuner(
        ExperimentTrial,
        param_space=plan.param_space(),
        tune_config=TuneConfig(
            metric=plan.metric,
            mode=plan.tune.mode,
            num_samples=plan.tune.num_samples,
            scheduler=_scheduler(plan),
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            **_search(plan),
        ),
        run_config=RunConfig(
            name=folder.trials.name,
            storage_path=str(folder.path.resolve()),
            stop=_stop(plan),
            failure_config=FailureConfig(max_failures=plan.tune.max_failures),
            checkpoint_config=_checkpoints(plan),
            callbacks=[_display(plan, folder), *_trackers(plan)],
            verbose=0,
        ),
    )


def resume(folder: TuningFolder) -> Tuner:
    """A search that goes on: its unfinished trials from their checkpoints, failed ones too."""
    return Tuner.restore(
        str(folder.trials.resolve()),
        ExperimentTrial,
        resume_unfinished=True,
        resume_errored=True,
    )


def run(tuner: Tuner, plan: SearchPlan, folder: TuningFolder) -> Ending:
    """Search to the end, print the table, and leave best experiment and pictures.

    Raises:
        NoResultError: No trial has a result.
    """
    callbacks = tuner._local_tuner.get_run_config().callbacks
    (display,) = (c for c in callbacks if isinstance(c, TuningDisplay))
    try:
        with leaving_after(_PATIENCE_S):
            results = tuner.fit()
    except RayError:
        if display.was_interrupted:  # The same signal has ended what Tune waits for.
            return "interrupted"
        raise
    trials = outcomes(results, plan)
    if not trials or math.isnan(trials[0].score):
        if display.was_interrupted:
            return "interrupted"
        raise NoResultError(_why(results, plan, folder))
    ending = ending_of(trials[0], plan, interrupted=display.was_interrupted)
    write_report(ending, trials, plan, folder)
    console = make_console()
    console.print(outcome_table(trials, plan, _SHOWN))
    command = f"best: rllib-per train {shlex.quote(str(folder.best))}{option_for(plan.config)}"
    console.print(command, soft_wrap=True, highlight=False)
    return ending


def ending_of(best: TrialOutcome, plan: SearchPlan, *, interrupted: bool) -> Ending:
    """How a search has ended, by its best trial."""
    if interrupted:
        return "interrupted"
    if plan.target is None:
        return "finished"
    return "target_met" if best.score >= plan.target else "budget_ended"


def _why(results: ResultGrid, plan: SearchPlan, folder: TuningFolder) -> str:
    if results.errors:
        first = str(results.errors[0]).strip().splitlines()[-1]
        return f"all trials failed, the first with: {first}; see {folder.trials}"
    return (
        f"no trial reported {plan.metric}; result.json of any trial below {folder.trials} has all "
        "that they report"
    )


def _scheduler(plan: SearchPlan) -> TrialScheduler:
    settings = plan.tune.scheduler
    if settings.type == "asha":
        return AsyncHyperBandScheduler(
            time_attr="env_steps",
            max_t=plan.config.stop.env_steps,
            grace_period=settings.grace_env_steps,
            reduction_factor=settings.reduction_factor,
        )
    if settings.type == "pbt":
        return PopulationBasedTraining(
            time_attr="env_steps",
            perturbation_interval=settings.interval_env_steps,
            quantile_fraction=settings.quantile_fraction,
            resample_probability=settings.resample_probability,
            require_attrs=False,  # Learners say nothing before learning starts.
            hyperparam_mutations=_mutations(plan.perturbed),
            custom_explore_fn=partial(_clamp, plan.perturbed),
        )
    return FIFOScheduler()


def _mutations(values: tuple[SearchValue, ...]) -> dict[str, Any]:
    """As PBT has them: nested like the config, a list for a choice."""
    mutations: dict[str, Any] = {}
    for value in values:
        target = mutations
        for key in value.path[:-1]:
            target = target.setdefault(str(key), {})
        is_choice = value.kind == "choice"
        target[str(value.path[-1])] = list(value.arguments) if is_choice else value.domain()
    return mutations


def _clamp(values: tuple[SearchValue, ...], config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what PBT multiplied within the bounds of the search."""
    return put(config, {value.path: value.clamp(get(config, value.path)) for value in values})


def _search(plan: SearchPlan) -> dict[str, Any]:
    seed, most = plan.config.seed, plan.tune.max_concurrent
    if plan.tune.search.type == "random":
        return {"search_alg": BasicVariantGenerator(max_concurrent=most or 0, random_state=seed)}
    from rllib_per.experiments.tuning.optuna_search import PatientOptunaSearch

    return {"search_alg": PatientOptunaSearch(seed=seed), "max_concurrent_trials": most}


def _stop(plan: SearchPlan) -> dict[str, float]:
    stop = plan.config.stop
    limits = {
        "env_steps": stop.env_steps,
        "updates": stop.updates,
        "time_total_s": stop.time_s,
        plan.metric: plan.target,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}


def _checkpoints(plan: SearchPlan) -> CheckpointConfig:
    checkpoint, iteration = plan.config.checkpoint, plan.config.reporting
    every = checkpoint.every_env_steps
    by_pbt = plan.tune.scheduler.type == "pbt"
    return CheckpointConfig(
        num_to_keep=max(checkpoint.keep, _KEPT_BY_PBT) if by_pbt else checkpoint.keep,
        checkpoint_frequency=max(every // max(iteration.min_sample_timesteps_per_iteration, 1), 1)
        if every is not None
        else 0,
        checkpoint_at_end=True,
    )


def _display(plan: SearchPlan, folder: TuningFolder) -> TuningDisplay:
    return TuningDisplay(folder.label, plan.values, plan.metric, plan.tune.mode)


def _trackers(plan: SearchPlan) -> list[Callback]:
    folder = plan.config.import_from
    return [import_class(t.callback_class, folder=folder)(**t.options) for t in plan.tune.trackers]


def _trial_name(trial: tune.experiment.Trial) -> str:
    return f"trial_{number_of(trial.trial_id)}"


def set_tunes_environment() -> None:
    """What Tune takes from the environment only, unless the user has set it."""
    # Trials find relative paths where the command was given, and not in their own folder.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    # How much a search that is killed has to do again, at most, beside its trials' checkpoints.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
    # Learners say nothing before learning starts; the display tells of a metric that is missing.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    # There is a table already.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
