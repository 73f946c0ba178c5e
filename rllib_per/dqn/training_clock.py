# SPDX-License-Identifier: MIT
"""How far training is, how many updates are due, what schedules say, and where the time goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter

from rllib_per.schedules import Schedule, schedule
from rllib_per.settings.algorithm import Settings


@dataclass
class Progress:
    """How far training is; schedules and the target network go by it."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0

    def load(self, state: dict[str, int]) -> None:
        """Go on where `state` was."""
        self.env_steps = state["env_steps"]
        self.episodes = state["episodes"]
        self.updates = state["updates"]


@dataclass
class Schedules:
    """What changes with env steps; the driver owns all of it."""

    epsilon: Schedule
    beta: Schedule
    lr: Schedule

    @classmethod
    def of(cls, settings: Settings) -> Schedules:
        """Those of an algorithm."""
        return cls(
            epsilon=schedule(settings.training.epsilon if settings.explore else 0.0),
            beta=schedule(settings.replay.beta),
            lr=schedule(settings.training.lr),
        )

    def follow(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        new = self.of(settings)
        self.epsilon, self.beta, self.lr = new.epsilon, new.beta, new.lr


class ReplayRatio:
    """Counts transitions in and out, so that sampled / added is the ratio, to one batch.

    Learning starts once `learning_starts` transitions were added to this buffer, whether they came
    from environments or from a checkpoint; only what is added after that earns updates.

    Args:
        ratio: Transitions sampled per transition added, > 0.
        batch_size: Transitions per update.
        learning_starts: Transitions that replay must have seen before the first update.
    """

    def __init__(self, ratio: float, batch_size: int, learning_starts: int) -> None:
        self.ratio = ratio
        self.batch_size = batch_size
        self.learning_starts = max(learning_starts, 1)
        self.num_added = 0
        self._credit = 0.0
        self._num_asked_for = 0

    def add(self, num_transitions: int) -> None:
        """Replay took `num_transitions` in."""
        before = self.num_added
        self.num_added += num_transitions
        earning = self.num_added - max(before, self.learning_starts)
        if before < self.learning_starts <= self.num_added:
            # The first batch needs no credit: all that was added before has earned it.
            self._credit = float(self.batch_size)
        self._credit += max(earning, 0) * self.ratio

    @property
    def num_due(self) -> int:
        """Updates that are due now."""
        return int(self._credit // self.batch_size)

    def take_updates(self) -> int:
        """Updates that are due now; they count as done."""
        updates, self._credit = divmod(self._credit, self.batch_size)
        return int(updates)

    def take(self, num_updates: int) -> None:
        """Some of those that are due: their batches are asked for."""
        self._credit -= num_updates * self.batch_size
        self._num_asked_for += num_updates

    def start_update(self) -> None:
        """One of those that were taken has its batch, and counts as done."""
        self._num_asked_for -= 1

    def give_back(self) -> None:
        """The batch of one that was taken will not come: it is due once more."""
        self._num_asked_for -= 1
        self._credit += self.batch_size

    def give_all_back(self) -> None:
        """The same of all that were taken and not started."""
        while self._num_asked_for:
            self.give_back()

    def state(self) -> dict[str, float]:
        """What `load_state` needs; batches under way will not be there then, and are due again."""
        under_way = self._num_asked_for * self.batch_size
        return {"num_added": self.num_added, "credit": self._credit + under_way}

    def load_state(self, state: dict[str, float], *, with_buffer: bool) -> None:
        """Go on where `state` was; without its buffer, learning waits for a refilled one."""
        self.num_added = int(state["num_added"]) if with_buffer else 0
        self._credit = state["credit"] if with_buffer else 0.0
        self._num_asked_for = 0


@dataclass(frozen=True)
class TrainingClock:
    """How far training is, what is due, and what the schedules say now: both loops go by it.

    Attributes:
        progress: How far training is.
        schedules: ε, β and learning rate.
        replay_ratio: How many updates are due.
        broadcast_interval: Updates between two times that runners get weights.
    """

    progress: Progress
    schedules: Schedules
    replay_ratio: ReplayRatio
    broadcast_interval: int

    @property
    def batch_size(self) -> int:
        """Transitions per update, of all learners together."""
        return self.replay_ratio.batch_size

    @property
    def epsilon(self) -> float:
        """The ε of now."""
        return self.schedules.epsilon(self.progress.env_steps)

    @property
    def beta(self) -> float:
        """The β of now."""
        return self.schedules.beta(self.progress.env_steps)

    @property
    def lr(self) -> float:
        """The learning rate of now."""
        return self.schedules.lr(self.progress.env_steps)

    def timesteps(self) -> dict[str, int]:
        """How far training is, as learners take it."""
        return asdict(self.progress)

    def count_steps(self, num_env_steps: int, num_episodes: int) -> None:
        """Env runners took these steps and ended these episodes."""
        self.progress.env_steps += num_env_steps
        self.progress.episodes += num_episodes

    def count_update(self) -> bool:
        """An update was started; whether it is time to give runners weights."""
        self.progress.updates += 1
        return self.progress.updates % self.broadcast_interval == 0


class Stopwatch:
    """Sums seconds per phase; one `perf_counter` pair per lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.laps: dict[str, int] = defaultdict(int)

    @contextmanager
    def lap(self, phase: str) -> Iterator[None]:
        """Time the block as one lap of `phase`."""
        start = perf_counter()
        yield
        self.seconds[phase] += perf_counter() - start
        self.laps[phase] += 1

    def means(self) -> dict[str, float]:
        """Seconds per lap, by phase."""
        return {phase: self.seconds[phase] / laps for phase, laps in self.laps.items()}
