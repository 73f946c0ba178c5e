# SPDX-License-Identifier: MIT
"""Train one experiment into one run folder: until it is solved, its budget ends, or a signal."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray.rllib.core import COMPONENT_LEARNER_GROUP, DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import DEFAULT_OPTIMIZER, LR_KEY, Learner
from ray.rllib.utils import force_list
from ray.rllib.utils.metrics import LEARNER_RESULTS, REPLAY_BUFFER_RESULTS

from rllib_per.checkpoints.archive import PendingSave
from rllib_per.checkpoints.files import CheckpointError
from rllib_per.dqn.algorithm import ApexDQN
from rllib_per.dqn.runner_health import actors_of, end_silent, silent_parts
from rllib_per.experiments.checkpoints import CheckpointSeries, newest_checkpoint
from rllib_per.experiments.episode_log import EpisodeLog, pop_episodes, spread
from rllib_per.experiments.evaluation import GreedyPolicy, PlayedEpisodes
from rllib_per.experiments.experiment import ExperimentConfig
from rllib_per.experiments.greedy_play import FINAL, GreedyPlay, is_due
from rllib_per.experiments.interruption import EXIT_CODE as INTERRUPTED
from rllib_per.experiments.interruption import Interruption, no_longer_than
from rllib_per.experiments.metrics_log import MetricsLog, MetricsRow, episodes_of
from rllib_per.experiments.plotting import plot_runs, read_columns
from rllib_per.experiments.progress import ProgressDisplay
from rllib_per.experiments.ray_session import num_cpus
from rllib_per.experiments.run_folder import (
    Ending,
    RunFolder,
    write_json,
    write_text,
)
from rllib_per.experiments.terminal import return_text
from rllib_per.experiments.torch_threads import set_torch_threads
from rllib_per.experiments.trackers import Tracker
from rllib_per.learning.learner_actors import LearnersLostError
from rllib_per.learning.update_metrics import QF_MEAN_KEY
from rllib_per.replay import TrainingDivergedError

# After a signal, what waits for other processes has this long, each: they may be dead.
_PATIENCE_S = 5.0
_PATIENCE_TO_STOP_S = 0.5  # All is saved by then.


class TrainingRun:
    """One run: RLlib's `train()` again and again, with metrics, evaluations and checkpoints."""

    def __init__(
        self,
        experiment: ExperimentConfig,
        run: RunFolder,
        display: ProgressDisplay,
        *,
        resume: bool = False,
        is_rehearsal: bool = False,
        tracker: Tracker | None = None,
    ) -> None:
        self._experiment = experiment
        self._is_rehearsal = is_rehearsal
        self._has_actors = num_cpus(experiment) > 0
        self._interruption = Interruption()
        self._run = run
        self._display = display
        config = experiment.algorithm_config()
        config.callbacks([EpisodeLog, *force_list(config.callbacks_class)])
        ignored = (
            frozenset() if experiment.checkpoint.buffer else frozenset({REPLAY_BUFFER_RESULTS})
        )
        checkpoint = newest_checkpoint(run.checkpoints, ignore=ignored) if resume else None
        self._algorithm: ApexDQN = config.build_algo()
        self._algorithm.should_stop = lambda: self._interruption.requested or self._is_over
        policy = GreedyPolicy(experiment)
        if experiment.evaluation.video_interval_env_steps is not None:
            from rllib_per.experiments.video import check_drawing

            check_drawing(policy)
        set_torch_threads(experiment, policy)
        self._time_before_s = 0.0
        if checkpoint is not None:
            self._restore(checkpoint)
        self._started_s = time.monotonic()
        self._left_at: int | None = None
        self._saved_at = self._env_steps
        self._greedy_play = GreedyPlay(
            experiment, self._algorithm, policy, lambda: self._interruption.requested
        )
        self._log = MetricsLog(
            run,
            resume_at=self._env_steps if resume else None,
            report=display.warn,
            tracker=tracker,
        )
        self._num_unwritten = 0
        window = experiment.reporting.metrics_num_episodes_for_smoothing
        self._recent = deque(episodes_of(run), window)
        self._checkpoints = CheckpointSeries(
            run.checkpoints,
            keep=experiment.checkpoint.keep,
            max_failures=experiment.checkpoint.max_failures,
            report=display.warn,
            on_saved=self._recover_shards_from,
        )

    def run(self) -> Ending:
        """Train to the end, and leave policy, result and learning curve in the run folder.

        Raises:
            CheckpointError: Some of it could not be written; the message names it.
        """
        self._run.failure.unlink(missing_ok=True)
        with suppress(OSError):
            settings = self._experiment.model_dump(mode="json")
            self._log.describe(settings, self._experiment.to_yaml(), self._env_steps)
        with self._interruption, self._log, self._display:
            try:
                return self._train()
            except Exception as error:
                self._record_failure(error)
                raise
            finally:
                if self._interruption.requested:
                    with no_longer_than(_PATIENCE_S, INTERRUPTED):
                        for actors, what in actors_of(self._algorithm):
                            end_silent(actors, what, patience_s=_PATIENCE_TO_STOP_S)
                        self._algorithm.stop()
                else:
                    self._algorithm.stop()

    def _train(self) -> Ending:
        target = self._experiment.stop.target_return
        snapshot = self._iterate() if self._is_rehearsal else None
        while not self._interruption.requested:
            if self._is_over or (snapshot is not None and self._seems_solved(snapshot)):
                # Whatever happens in the evaluation, what was trained is there.
                self._leave("interrupted", None)
                if not self._experiment.plays_at_the_end:
                    return self._leave("finished", None)
                num_episodes = self._experiment.evaluation.final_num_episodes
                final = self._greedy_play.evaluate(num_episodes, FINAL, self._display.show_played)
                if final is None:
                    break
                mean = final.summary()["episode_return_mean"]
                if self._experiment.stop.is_met(mean):
                    return self._leave("target_met", final)
                if self._is_over:
                    return self._leave("finished" if target is None else "budget_ended", final)
                self._display.say(
                    f"final evaluation {return_text(mean)} < {target:g}: training goes on"
                )
            self._save_if_due()
            try:
                with self._interruption.breaking_off(_PATIENCE_S if self._has_actors else None):
                    snapshot = self._iterate()
            except Exception as error:
                if not (self._has_actors and self._interruption.requested):
                    raise
                self._display.warn(f"broken off, for other processes ended too: {error}")
        return self._leave("interrupted", None)

    def _iterate(self) -> MetricsRow:
        """One RLlib iteration, measured and written down."""
        began_s, steps, updates = time.monotonic(), self._env_steps, self._updates
        result = self._algorithm.train()
        took_s = time.monotonic() - began_s
        episodes = pop_episodes(result)
        self._recent.extend(episodes)
        replay = result[REPLAY_BUFFER_RESULTS]
        learner = result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
        snapshot = MetricsRow(
            env_steps=self._env_steps,
            updates=self._updates,
            episodes=self._algorithm.progress.episodes,
            time_s=round(self._time_s, 3),
            episode_return_mean=self._recent_mean(),
            episode_len_mean=self._recent_mean(1),
            evaluation_return_mean=self._greedy_play.evaluate_if_due(),
            env_steps_per_s=round((self._env_steps - steps) / took_s, 1),
            updates_per_s=round((self._updates - updates) / took_s, 1),
            loss=_finite(learner.get(Learner.TOTAL_LOSS_KEY)),
            q_mean=_finite(learner.get(QF_MEAN_KEY)),
            lr=_finite(learner.get(f"{DEFAULT_OPTIMIZER}_{LR_KEY}")),
            replay_ratio=replay.get("replay_ratio"),
            epsilon=replay.get("epsilon"),
            beta=replay.get("beta"),
            buffer_size=len(self._algorithm.replay),
            buffer_capacity=self._experiment.replay.capacity,
        )
        self._write_metrics(snapshot, result, spread(episodes, steps, self._env_steps))
        self._write_game_if_due()
        self._display.show(snapshot)
        return snapshot

    def _write_metrics(
        self,
        snapshot: MetricsRow,
        result: dict[str, Any],
        episodes: Iterator[tuple[int, float, int]],
    ) -> None:
        """What can't be written, on a full disk say, is missing there and stops nothing."""
        failed = self._checkpoints.num_failed_lifetime
        try:
            self._log.write(snapshot, result | {"checkpoints": {"num_failed": failed}}, episodes)
        except OSError as error:
            if not self._num_unwritten:
                self._display.warn(f"metrics could not be written: {error}; training goes on")
            self._num_unwritten += 1
        else:
            if self._num_unwritten:
                self._display.warn(
                    f"metrics can be written again; those of {self._num_unwritten} iterations are "
                    "missing"
                )
            self._num_unwritten = 0

    def _seems_solved(self, snapshot: MetricsRow) -> bool:
        """Worth a final evaluation: by greedy play if there is any, else by training episodes."""
        target = self._experiment.stop.target_return
        if target is None:
            return False
        if self._experiment.evaluation.interval_env_steps is not None:
            mean = snapshot.evaluation_return_mean
            return mean is not None and mean >= target
        mean = self._recent_mean()
        is_full = len(self._recent) == self._recent.maxlen
        return mean is not None and mean >= target and is_full

    def _recent_mean(self, which: int = 0) -> float | None:
        """Return, or length, of the newest episodes; RLlib's own is NaN where none ended."""
        recent = [episode[which] for episode in self._recent]
        return sum(recent) / len(recent) if recent else None

    def _write_game_if_due(self) -> None:
        try:
            path = self._greedy_play.record_game_if_due(self._run.videos)
            if path is not None:
                from rllib_per.experiments.video import as_gif

                self._log.write_game(as_gif(path), self._env_steps)
        except (TrainingDivergedError, LearnersLostError):
            raise
        except (OSError, RuntimeError) as error:
            self._display.warn(f"a game could not be recorded: {error}; training goes on")

    def _save_if_due(self) -> None:
        self._checkpoints.poll()
        if is_due(self._experiment.checkpoint.every_env_steps, self._saved_at, self._env_steps):
            self._save()

    def _save(self) -> None:
        """Start a checkpoint; replay's rows are written while training goes on."""
        self._saved_at = self._env_steps
        self._checkpoints.start(self._env_steps, self._start_checkpoint)

    def _start_checkpoint(self, folder: Path, without: Collection[str] = ()) -> PendingSave:
        save = self._algorithm.start_save(folder / "algorithm", without=without)
        write_json(folder / "training.json", {"time_s": self._time_s})
        return save

    def _recover_shards_from(self, checkpoint: Path) -> None:
        if (checkpoint / "algorithm" / REPLAY_BUFFER_RESULTS).is_dir():
            self._algorithm.recover_shards_from(checkpoint / "algorithm")

    def _save_at_the_end(self) -> None:
        """All there is: a signal may have ended other processes too."""
        is_signal = self._interruption.requested
        lost = silent_parts(self._algorithm, _PATIENCE_S) if is_signal else set()
        if lost:
            self._checkpoints.abandon()
        if COMPONENT_LEARNER_GROUP in lost:
            self._display.warn("learners do not answer any more: the last checkpoint is the newest")
            return
        if REPLAY_BUFFER_RESULTS in lost:
            self._display.warn(
                "replay shards do not answer any more: replay is gone, and the checkpoint is of "
                "weights, optimizer and counters"
            )
        self._checkpoints.start(self._env_steps, partial(self._start_checkpoint, without=lost))
        self._checkpoints.finish()

    def _restore(self, checkpoint: Path) -> None:
        folder = str((checkpoint / "algorithm").resolve())
        self._algorithm.restore_from_path(folder, is_verified=True)
        self._time_before_s = json.loads((checkpoint / "training.json").read_text())["time_s"]

    def _leave(self, ending: Ending, final: PlayedEpisodes | None) -> Ending:
        """Leave checkpoint, policy, result and learning curve of this moment in the run folder."""
        if self._left_at != self._env_steps:
            with self._interruption.breaking_off(None):
                self._save_at_the_end()
            self._left_at = self._env_steps
        result = self._result(ending) | {"evaluation": None if final is None else final.summary()}
        unwritten = []
        for path, write in (
            (self._run.policy, self._greedy_play.save_policy),
            (self._run.result, partial(write_json, value=result)),
            (self._run.learning_curve, self._plot),
        ):
            try:
                write(path)
            except OSError as error:
                unwritten.append(f"{path} ({error.strerror})")
        if self._num_unwritten:
            unwritten.append(f"metrics of the last {self._num_unwritten} iterations")
        if unwritten:
            raise CheckpointError(f"could not be written: {', '.join(unwritten)}; make room there")
        self._checkpoints.require_saved()
        return ending

    def _result(self, ending: str) -> dict[str, Any]:
        return {
            "ending": ending,
            "target_return": self._experiment.stop.target_return,
            "env_steps": self._env_steps,
            "updates": self._updates,
            "episodes": self._algorithm.progress.episodes,
            "time_s": round(self._time_s, 3),
            "seed": self._experiment.seed,
        }

    def _plot(self, path: Path) -> None:
        episodes, _ = read_columns(self._run.episodes_csv, "env_steps", "episode_return")
        if len(episodes):  # Those of a first iteration that was cut short are not written.
            plot_runs([self._run], path, target_return=self._experiment.stop.target_return)

    def _record_failure(self, error: Exception) -> None:
        """Why the run failed, for those who did not see it; a full disk may not take it."""
        with suppress(OSError):
            write_text(self._run.failure, "".join(traceback.format_exception(error)))
            told = f"{type(error).__name__}: {error}"
            result = self._result("failed") | {"error": told, "evaluation": None}
            write_json(self._run.result, result)

    @property
    def _is_over(self) -> bool:
        spent = (self._env_steps, self._updates, self._time_s)
        return bool(self._experiment.stop.used_up(*spent))

    @property
    def _env_steps(self) -> int:
        return self._algorithm.progress.env_steps

    @property
    def _updates(self) -> int:
        return self._algorithm.progress.updates

    @property
    def _time_s(self) -> float:
        return self._time_before_s + time.monotonic() - self._started_s


def _finite(value: Any) -> float | None:
    """Of a learner; None where there is none yet."""
    return None if value is None or not math.isfinite(value) else float(value)
